"""Every reader of files, with what it reads, for test_disk_readers.py.

A case has the files of a source folder, and a function that reads all of them and touches every array.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bag_writer import INSTRUCTION, write_bag
from disk_cases import DEMO, SPEC, a_checkpoint, outcome

from m2distill_policy.cameras import CAMERA_NAMES, read_cameras
from m2distill_policy.checkpoint import load_checkpoint, save_checkpoint
from m2distill_policy.safety.arm_presets import load_arm
from m2distill_policy.spec import libero_spec, read_spec
from m2distill_training.data.lerobot.dataset import LerobotDataset
from m2distill_training.data.lerobot.lerobot_export import export_lerobot
from m2distill_training.data.libero.reader import Demo, open_libero
from m2distill_training.data.libero.writer import NewDemo, write_demos
from m2distill_training.data.rosbag.bag_import import import_bags
from m2distill_training.data.store import Store, open_store
from m2distill_training.data.task_memory import load_task_memory
from m2distill_training.report.runs import load_run
from m2distill_training.runs.records import read_lines
from m2distill_training.runs.run_folder import RunFolder, read_run

STORED_RUN = Path(__file__).parent / "data/run_schema1/run"


@dataclass(frozen=True)
class Case:
    """One reader: the files below a folder that it reads, and how it reads them."""

    files: tuple[str, ...]  # glob patterns; each must match
    read: Callable[[Path], object]
    checked: bool = True  # damage within a file is noticed: it has sums, or a syntax

    def paths(self, folder: Path) -> list[Path]:
        found = [sorted(path for path in folder.glob(pattern) if path.is_file()) for pattern in self.files]
        assert all(found), self.files
        return [path for paths in found for path in paths]


def prepare(folder: Path) -> None:
    """Write what all cases read."""
    images = {name: frames[:8] for name, frames in DEMO.images.items()}
    short = Demo("a", images, DEMO.joint[:8], DEMO.gripper[:8], DEMO.action[:8])
    write_demos(folder / "a_demo.hdf5", "do", [NewDemo(short, {}, {})])
    export_lerobot([folder / "a_demo.hdf5"], folder / "lerobot", lossless=True)
    open_store(folder / "a_demo.hdf5", SPEC, "before", folder / "cache")
    spec = libero_spec(64, text_encoder="none", text_width=8)
    labels = {"instruction": INSTRUCTION, "success": "true", "spec": spec.to_json(), "arm": "libero_sim"}
    write_bag(folder / "bag", labels=labels)
    save_checkpoint(folder / "checkpoint", a_checkpoint())
    shutil.copytree(STORED_RUN, folder / "run")
    (folder / "arm.yaml").write_text("max_linear_m_s: 0.1\n")
    (folder / "cameras.yaml").write_text("cameras:\n  - name: agentview\n")


def cases() -> dict[str, Case]:
    return {
        "LIBERO-format file": Case(("a_demo.hdf5",), _read_demos, checked=False),
        "store of decoded frames": Case(("cache/*/*.npy",), _read_store, checked=False),
        "LeRobot dataset": Case(
            ("lerobot/meta/info.json", "lerobot/data/*/*", "lerobot/videos/*/*/*"), _read_lerobot, checked=False
        ),
        "bag": Case(("bag/*",), _import_bag, checked=False),
        "checkpoint": Case(("checkpoint/*",), lambda folder: load_checkpoint(folder / "checkpoint")),
        "spec of a checkpoint": Case(
            ("checkpoint/spec.json", "checkpoint/SHA256SUMS"), lambda folder: read_spec(folder / "checkpoint")
        ),
        "configuration of a run": Case(("run/config.json", "run/data.json"), lambda folder: read_run(folder / "run")),
        "log of a run": Case(("run/metrics.jsonl",), lambda folder: RunFolder(folder / "run").metrics()),
        "memory of a run": Case(("run/memory/0/replay/*",), _read_memory, checked=False),
        "results of an evaluation": Case(
            ("run/evaluation.json", "run/environment.json"), lambda folder: load_run(folder / "run")
        ),
        "finished episodes": Case(("run/episodes.jsonl",), lambda folder: read_lines(folder / "run/episodes.jsonl")),
        "arm file": Case(("arm.yaml",), lambda folder: load_arm(str(folder / "arm.yaml"))),
        "camera file": Case(("cameras.yaml",), lambda folder: read_cameras(folder / "cameras.yaml")),
    }


def _read_demos(folder: Path) -> None:
    with open_libero(folder / "a_demo.hdf5", "before") as file:
        assert [len(demo.action) for demo in file.demos()] == [8]


def _touch(store: Store) -> None:
    for array in (*store.images.values(), store.joint, store.gripper, store.action, store.bounds):
        np.asarray(array).sum()


def _read_store(folder: Path) -> None:
    (key,) = [path.name for path in (folder / "cache").iterdir()]
    store = open_store(folder / "a_demo.hdf5", SPEC, "before", folder / "cache")
    assert store.key == key
    _touch(store)


def _read_lerobot(folder: Path) -> None:
    cameras = {name: f"observation.images.{name}" for name in ("agentview", "wrist")}
    assert len(list(LerobotDataset(folder / "lerobot", cameras).all_demos())) == 1


def _import_bag(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as out:
        import_bags([folder / "bag"], Path(out))


def _read_memory(folder: Path) -> None:
    dataset = json.loads((STORED_RUN / "data.json").read_text())[0]
    _touch(load_task_memory(folder / "run/memory/0/replay", dataset, CAMERA_NAMES).store)


def outcome_apart(read: Callable[[Path], object], folder: Path, user: int | None = None) -> str:
    """Return the outcome of a reader in a process of its own, of another user if asked for."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        if user is not None:
            os.setresuid(user, user, user)
        with os.fdopen(writing, "w") as pipe:
            pipe.write(outcome(read, folder, "read", named=True))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = pipe.read()
    status = os.waitpid(child, 0)[1]
    return found if status == 0 else f"DIED {os.waitstatus_to_exitcode(status)}"
