"""Suites: LIBERO's tasks in benchmark order, and "robosuite" with its Lift; their instructions and initial states.

This module reads the data of the LIBERO package without importing it. The 50 initial states of a task have one fixed
split: demonstrations start from DEMO_STATES; success is reported on HELD_OUT, which no demonstration and no checkpoint
selection may use. Further evaluation episodes, numbered from 50 to 999, start from placements drawn with LIBERO's own
rules. Episodes for choices, such as of hyper-parameters, start from placements numbered from CHOICE_FROM, so the two
kinds are disjoint by construction.
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
from m2distill_policy.suites import task_instruction
from m2distill_sim import lift
from m2distill_sim.assets import AssetSource, find_assets, libero_package

DEMO_STATES = tuple(range(0, 40))
HELD_OUT = tuple(range(40, 50))
MAX_BYTES = 1 << 26  # of a task's initial states; LIBERO's take less than 0.1 MB
DRAWN_FROM = 50  # starts from this number on are placements drawn with the number as seed
CHOICE_FROM = 1000  # starts from this number on serve choices and are never reported
STARTS = ("report", "choice")


@dataclass(frozen=True)
class Task:
    """One task of a suite."""

    suite: str
    index: int  # in benchmark order
    name: str  # file name stem, "pick_up_the_milk_and_place_it_in_the_basket"
    instruction: str  # LIBERO's: the name with spaces

    @property
    def full_name(self) -> str:
        """SUITE/NAME, which identifies the task; suites share instructions."""
        return f"{self.suite}/{self.name}"

    @property
    def bddl_file(self) -> Path:
        return libero_package() / "bddl_files" / self.suite / f"{self.name}.bddl"


@functools.cache
def suites() -> dict[str, tuple[Task, ...]]:
    """Return suite name -> its tasks, LIBERO's in benchmark order."""
    source = (libero_package() / "benchmark" / "libero_suite_task_map.py").read_text()
    names = ast.literal_eval(source.split("=", 1)[1].strip())  # one dict literal
    found = {
        suite: tuple(Task(suite, i, name, task_instruction(name)) for i, name in enumerate(tasks))
        for suite, tasks in names.items()
    }
    return found | {lift.SUITE: (Task(lift.SUITE, 0, lift.NAME, lift.INSTRUCTION),)}


def find_task(suite: str, task: int | str) -> Task:
    """Return a task by its index in the suite or by its name. Raises UserError."""
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


def held_out(episodes: int, starts: str = "report") -> tuple[int, ...]:
    """Return the numbers of the first `episodes` held-out starts.

    Args:
        episodes: how many.
        starts: "report" for HELD_OUT, then drawn placements below CHOICE_FROM; "choice" for placements from it on.

    Raises:
        UserError: `starts` is not one of STARTS, or has fewer than `episodes`.
    """
    if starts not in STARTS:
        raise UserError(unknown_name("starts", starts, STARTS))
    if starts == "choice":
        return tuple(range(CHOICE_FROM, CHOICE_FROM + episodes))
    reported = (*HELD_OUT, *range(DRAWN_FROM, CHOICE_FROM))
    if episodes > len(reported):
        raise UserError(f"{episodes} episodes per task requested, expected at most {len(reported)}; lower --episodes")
    return reported[:episodes]


def initial_state(suite: str, task: int | str, start: int) -> np.ndarray | None:
    """Return the initial state (D,) float64 of a start; None for a placement to be drawn with `start` as seed."""
    return initial_states(suite, task)[start] if start < DRAWN_FROM else None


def initial_states(suite: str, task: int | str) -> np.ndarray:
    """Return the task's fixed initial states (50, D) float64, each [time, qpos, qvel]."""
    found = find_task(suite, task)
    if found.suite == lift.SUITE:
        return lift.initial_states()
    return read_states(libero_package() / "init_files" / found.suite / f"{found.name}.pruned_init")


def read_states(path: Path) -> np.ndarray:
    """Read states (N, D) float64, finite, from a file of LIBERO: one pickled array in a zip. Raises AssetError."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = next(info for info in archive.infolist() if info.filename.endswith("/data.pkl"))
            if member.file_size > MAX_BYTES:
                raise pickle.UnpicklingError(f"it unpacks to {member.file_size} bytes")
            states = _load_array(archive.read(member))
        if states.ndim != 2 or states.dtype.kind not in "fiu" or not np.isfinite(states).all():
            raise pickle.UnpicklingError(f"it contains {states.dtype} {states.shape}, expected rows of finite numbers")
    except Exception as error:  # damaged or hostile bytes raise many types
        raise AssetError(f"initial states {path} are not readable: {error}; reinstall hf-libero") from error
    return states.astype(np.float64)


def assets_of(suite: str, kind_or_path: str | None = None) -> AssetSource:
    """Return the assets of a suite; `kind_or_path` as in find_assets, ignored for robosuite, which has its own."""
    return lift.assets() if suite == lift.SUITE else find_assets(kind_or_path)


def _load_array(content: bytes) -> np.ndarray:
    for opcode, argument, _ in pickletools.genops(content):
        if "PUT" in opcode.name and argument is not None and int(argument) > len(content):
            raise pickle.UnpicklingError("it numbers more objects than it contains")  # and would exhaust the memory
    found = _ArrayUnpickler(io.BytesIO(content)).load()
    if type(found) is not np.ndarray:
        raise pickle.UnpicklingError(f"it contains a {type(found).__name__}, expected an array")
    return found


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler that loads only the names that a pickled numpy array needs."""

    ALLOWED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: np.empty(0),  # its shape is set later
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
    }

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it contains {module}.{name}, expected an array")
        return self.ALLOWED[module, name]
