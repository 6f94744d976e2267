"""Every writer on a disk that is full, read-only or not permitted, beside a twin, and killed in the middle.

Run as a program, it prints {writer: {fault: outcome}} as JSON; `test_disk_faults.py` starts it in a mount namespace of
its own, with a small tmpfs at the folder that it is given.
"""

import contextlib
import dataclasses
import functools
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.models import Policy, small
from m2distill_policy.recording.episode import Recordings
from m2distill_policy.spec import CameraSpec, PolicySpec, libero_spec
from m2distill_policy.utils.files import write_atomically
from m2distill_sim.assets import write_folder
from m2distill_sim.libero_writer import SimulatedEpisode, store_demo, write_task
from m2distill_sim.suites import find_task
from m2distill_sim.video import write_video
from m2distill_training.data.lerobot.lerobot_export import export_lerobot
from m2distill_training.data.lerobot.lerobot_import import import_lerobot
from m2distill_training.data.libero.reader import Demo, open_libero
from m2distill_training.data.libero.writer import NewDemo, write_demos
from m2distill_training.data.store import open_store
from m2distill_training.data.task_memory import save_task_memory
from m2distill_training.data.videos import read_frames
from m2distill_training.data.windows import DemoSubset
from m2distill_training.runs.onnx_files import write_files
from m2distill_training.runs.records import append_line, read_lines, write_json
from m2distill_training.runs.tensorboard import write_events

T, PX = 40, 64
LINE, EVENTS = "line of a log", "events for TensorBoard"
NOT_FLUSHED = (LINE, EVENTS)  # a kill may cut their last part short
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (T, PX, PX, 3), np.uint8)
DEMO = Demo("a", {"agentview": IMAGES, "wrist": IMAGES}, *(RNG.uniform(-1, 1, (T, n)).astype("f4") for n in (7, 2, 7)))
SPEC = PolicySpec(tuple(CameraSpec(name, PX, PX, True) for name in ("agentview", "wrist")))
SUBSET: list[DemoSubset] = []  # of the source file
POINTS = [(step, {"x" * 1000: 0.0}) for step in range(400)]


def _record(folder: Path) -> None:
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_JAZZY)
    with Recordings(folder / "episodes") as recordings:
        episode = recordings.begin({"/a": "std_msgs/msg/String"}, types, {"instruction": "x"})
        try:
            for i in range(100):
                episode.bag.write("/a", i, RNG.bytes(10_000))
            episode.bag.flush()
        finally:
            with contextlib.suppress(OSError):
                episode.keep()


def _task(source: Path) -> Callable[[Path], None]:
    datasets = {"actions": np.zeros((T, 7)), "states": np.zeros((T, 20)), "obs/agentview_rgb": IMAGES}

    def write(folder: Path) -> None:
        store_demo(folder / "0.hdf5", SimulatedEpisode(datasets, "<mujoco/>"))
        write_task(folder / "task.hdf5", find_task("libero_object", 0), [folder / "0.hdf5"], "builtin", True, {})

    return write


def writers(source: Path) -> dict[str, Callable[[Path], object]]:
    """Return every writer as a function of a folder. `source` holds what they convert."""
    return {
        "store of decoded frames": lambda folder: open_store(source / "a_demo.hdf5", SPEC, "before", folder / "cache"),
        "LIBERO-format file": lambda folder: write_demos(folder / "b.hdf5", "do", [NewDemo(DEMO, {}, {})]),
        "collected demonstration": _task(source),
        "LeRobot dataset": lambda folder: export_lerobot([source / "a_demo.hdf5"], folder / "lerobot", lossless=True),
        "import of a LeRobot dataset": lambda folder: import_lerobot(source / "lerobot", folder / "imported"),
        "memory of a run": lambda folder: save_task_memory(folder / "memory", SUBSET[0], [0]),
        "video": lambda folder: write_video(folder / "a.mp4", list(IMAGES), 20),
        "record": lambda folder: write_json(folder / "a.json", {"text": ["x" * 900] * 2000}),
        LINE: lambda folder: append_line(folder / "a.jsonl", {"text": ["x" * 900] * 2000}),
        "page or image": lambda folder: write_atomically(folder / "a.html", RNG.bytes(2_000_000)),
        EVENTS: lambda folder: write_events(folder / "tensorboard", "stage_1", POINTS),
        "checkpoint": lambda folder: save_checkpoint(folder / "checkpoint", a_checkpoint()),
        "ONNX export": lambda folder: write_files(
            folder / "onnx", {"encoder.onnx": bytes(400_000), "spec.json": b"{}"}
        ),
        "assets": lambda folder: write_folder(folder / "assets", {"a/b": RNG.bytes(2_000_000)}),
        "episode of the recorder": _record,
    }


@functools.cache
def a_checkpoint() -> Checkpoint:
    """Return a checkpoint of about 1 MB."""
    spec = libero_spec(64, text_encoder="none", text_width=8)
    config = dataclasses.replace(small(), layers=1)
    return Checkpoint(spec, config, Policy(config, spec).state_dict(), {"do": np.zeros(8, np.float32)})


def outcome(act: Callable[[Path], object], folder: Path, done: str = "written", named: bool = False) -> str:
    """Return `done`, or the kind of the error and its message; if `named`, an OSError must name its file."""
    try:
        act(folder)
    except UserError as error:
        return f"UserError: {error}"
    except OSError as error:
        if named and not error.filename:
            return "TRACEBACK " + traceback.format_exc()
        return f"OSError {error.errno}: {error}"
    except BaseException:
        return "TRACEBACK " + traceback.format_exc()
    return done


def unmount(folder: Path) -> None:
    """Unmount a disk; files that an error's frames still hold are closed first (Python 3.12 keeps them longer)."""
    gc.collect()
    subprocess.run(["umount", folder], check=True)


def left(folder: Path) -> list[str]:
    """Return the temporary files below a folder."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if ".tmp" in path.name]


def killed(write: Callable[[Path], object], folder: Path) -> int:
    """Run a writer in a child that is killed where it flushes its content."""
    if (child := os.fork()) == 0:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        with contextlib.suppress(BaseException):
            write(folder)
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def as_nobody(write: Callable[[Path], object], folder: Path, notes: Path) -> str | None:
    """Return the outcome of a writer as a user who does not own the folder; None if root cannot become one."""
    if Path("/proc/self/uid_map").read_text().split()[2] == "1":
        return None
    note = notes / "nobody.json"
    if (child := os.fork()) == 0:
        os.setresuid(65534, 65534, 65534)
        note.write_text(json.dumps(outcome(write, folder)))
        os._exit(0)
    os.waitpid(child, 0)
    found = json.loads(note.read_text())
    note.unlink()
    return found


def twins(write: Callable[[Path], object], folder: Path, notes: Path) -> list[str]:
    """Run a writer in two processes at once and return both outcomes."""
    children = []
    for _ in range(2):
        if (child := os.fork()) == 0:
            (notes / f"{os.getpid()}.json").write_text(json.dumps(outcome(write, folder)))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return [json.loads((notes / f"{child}.json").read_text()) for child in children]


def read_again(folder: Path) -> str:
    """Return "" if everything that is in a folder can be read, otherwise the error."""
    try:
        for path in folder.rglob("*.hdf5"):
            with h5py.File(path, "r") as file:
                file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)
        for path in folder.rglob("*.npy"):
            np.load(path)
        for path in folder.rglob("*.jsonl"):
            read_lines(path)
        if (folder / "checkpoint").is_dir():
            load_checkpoint(folder / "checkpoint")
        for path in [path for path in folder.rglob("*.json") if path.parent.name != "meta"]:
            json.loads(path.read_text())
        for path in folder.rglob("a.mp4"):
            assert len(list(read_frames(path, 0.0, T, 20))) == T
        if (folder / "lerobot").is_dir():
            import_lerobot(folder / "lerobot", folder / "again")
    except Exception:
        return traceback.format_exc()
    return ""


def emptied(folder: Path) -> Path:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def main(folder: Path, source: Path) -> None:
    write_demos(source / "a_demo.hdf5", "do", [NewDemo(DEMO, {}, {})])
    export_lerobot([source / "a_demo.hdf5"], source / "lerobot", lossless=True)
    a_checkpoint()  # before the forks
    SUBSET.append(DemoSubset(open_store(source / "a_demo.hdf5", SPEC, "before"), np.zeros(4, np.float32), (0,)))
    with open_libero(source / "a_demo.hdf5", "before"):
        pass
    found: dict[str, dict[str, object]] = {}
    mount = ["mount", "-t", "tmpfs", "-o"]
    for name, write in writers(source).items():
        row = found[name] = {}
        subprocess.run([*mount, "size=256k", "tmpfs", folder], check=True)
        row["full"] = outcome(write, folder)
        row["left when full"], row["read when full"] = left(folder), read_again(folder)
        unmount(folder)
        subprocess.run([*mount, "ro", "tmpfs", folder], check=True)
        row["read-only"] = outcome(write, folder)
        unmount(folder)
        row["twins"] = twins(write, emptied(folder), source)
        row["read after twins"], row["left by twins"] = read_again(folder), left(folder)
        # a line of a log is not flushed to the disk: it is cut short by hand in test_disk_faults.py
        row["signal"] = 9 if name in NOT_FLUSHED else killed(write, emptied(folder))
        for path in [folder, *folder.rglob("*")]:
            os.utime(path, (0, 0), follow_symlinks=False)
        row["after a kill"] = outcome(write, folder)
        row["left after a kill"] = left(folder)
        emptied(folder)
        row["not permitted"] = as_nobody(write, folder, source)
        emptied(folder)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
