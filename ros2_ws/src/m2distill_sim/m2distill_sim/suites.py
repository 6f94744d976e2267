"""Suites: LIBERO's tasks in benchmark order, and "robosuite" with its Lift; instructions, initial states. Reads the
LIBERO package's data; imports no LIBERO.

The 50 initial states of a task are split once for everybody: demonstrations start from DEMO_STATES, success is reported
on HELD_OUT, which no demonstration and no checkpoint selection may use. Whoever wants more evidence goes on with
placements drawn by numbers from 50 on, by the rules that LIBERO's own states were drawn by.
"""

import ast
import functools
import io
import pickle
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from m2distill_policy.errors import AssetError, UserError, unknown_name
from m2distill_sim import lift
from m2distill_sim.assets import AssetSource, find_assets, libero_package

DEMO_STATES = tuple(range(0, 40))
HELD_OUT = tuple(range(40, 50))
MOST_BYTES = 1 << 26  # of a task's initial states; LIBERO's take less than 0.1 MB
DRAWN_FROM = 50  # a start of this number or more is a placement drawn by it


@dataclass(frozen=True)
class Task:
    suite: str
    index: int  # in benchmark order
    name: str  # file name stem, "pick_up_the_milk_and_place_it_in_the_basket"
    instruction: str  # what a person says, LIBERO's: the name with spaces

    @property
    def bddl_file(self) -> Path:
        return libero_package() / "bddl_files" / self.suite / f"{self.name}.bddl"


@functools.cache
def suites() -> dict[str, tuple[Task, ...]]:
    """Suite name -> its tasks, LIBERO's in benchmark order."""
    source = (libero_package() / "benchmark" / "libero_suite_task_map.py").read_text()
    names = ast.literal_eval(source.split("=", 1)[1].strip())  # one dict literal
    found = {
        suite: tuple(Task(suite, i, name, _instruction(name)) for i, name in enumerate(tasks))
        for suite, tasks in names.items()
    }
    return found | {lift.SUITE: (Task(lift.SUITE, 0, lift.NAME, lift.INSTRUCTION),)}


def find_task(suite: str, task: int | str) -> Task:
    """A task by its index in the suite or by its name; raises UserError."""
    if suite not in suites():
        raise UserError(unknown_name("suite", suite, suites()))
    tasks = suites()[suite]
    if isinstance(task, str):
        for candidate in tasks:
            if candidate.name == task:
                return candidate
        raise UserError(unknown_name(f"task of {suite}", task, (t.name for t in tasks)))
    if not 0 <= task < len(tasks):
        raise UserError(f"{suite} has no task {task} (allowed: 0 to {len(tasks) - 1})")
    return tasks[task]


def held_out(episodes: int) -> tuple[int, ...]:
    """Numbers of the first starts that no demonstration used: HELD_OUT, then drawn ones."""
    return (*HELD_OUT, *range(DRAWN_FROM, DRAWN_FROM + episodes))[:episodes]


def initial_state(suite: str, task: int | str, start: int) -> np.ndarray | None:
    """(D,) float64 of a start by its number; None for one that is drawn, with its number for a seed."""
    return initial_states(suite, task)[start] if start < DRAWN_FROM else None


def initial_states(suite: str, task: int | str) -> np.ndarray:
    """(50, D) float64: the task's fixed initial states, each [time, qpos, qvel]."""
    found = find_task(suite, task)
    if found.suite == lift.SUITE:
        return lift.initial_states()
    return read_states(libero_package() / "init_files" / found.suite / f"{found.name}.pruned_init")


def read_states(path: Path) -> np.ndarray:
    """(N, D) float64, finite, from a file as LIBERO packs them: one pickled array in a zip. Raises AssetError."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = next(info for info in archive.infolist() if info.filename.endswith("/data.pkl"))
            if member.file_size > MOST_BYTES:
                raise pickle.UnpicklingError(f"it unpacks to {member.file_size} bytes")
            states = _load_array(archive.read(member))
        if states.ndim != 2 or states.dtype.kind not in "fiu" or not np.isfinite(states).all():
            raise pickle.UnpicklingError(f"it holds {states.dtype} {states.shape}, no rows of finite numbers")
    except Exception as error:  # damaged or hostile bytes fail in whatever way
        raise AssetError(f"initial states {path} are not readable: {error}; reinstall hf-libero") from error
    return states.astype(np.float64)


def assets_of(suite: str, kind_or_path: str | None = None) -> AssetSource:
    """What the suite's tasks are drawn with; `kind_or_path` as in assets.find_assets, and without meaning for a suite
    that brings its own."""
    return lift.assets() if suite == lift.SUITE else find_assets(kind_or_path)


def _instruction(name: str) -> str:
    """LIBERO's rule: words of the file name, without the scene prefix of LIBERO-10 and -90."""
    if name[0].isupper():
        _, _, name = name[name.index("SCENE") :].partition("_")
    return name.replace("_", " ")


def _load_array(content: bytes) -> np.ndarray:
    for opcode, argument, _ in pickletools.genops(content):
        if "PUT" in opcode.name and argument is not None and int(argument) > len(content):
            raise pickle.UnpicklingError("it numbers more objects than it holds")  # and would fill the memory with them
    found = _ArrayUnpickler(io.BytesIO(content)).load()
    if type(found) is not np.ndarray:
        raise pickle.UnpicklingError(f"it holds a {type(found).__name__}, which is no array")
    return found


class _ArrayUnpickler(pickle.Unpickler):
    """Loads what a pickled numpy array needs and nothing else."""

    ALLOWED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: np.empty(0),  # its shape follows
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
    }

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it contains {module}.{name}, which is no array")
        return self.ALLOWED[module, name]
