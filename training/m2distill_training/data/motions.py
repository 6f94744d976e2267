"""One episode of a set of demonstrations as a motion for `m2distill replay`, and the state from which it began.

An HDF5 file of `m2distill collect` also holds what was added to each action when it was executed (`disturbances`). The
motion has what was executed. In LIBERO's own files the joints of a row follow its action, so that a replay is one step
ahead of them; this is small against the tolerance.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from m2distill_policy.errors import DataError, unknown_name
from m2distill_policy.recording.motion import RecordedMotion
from m2distill_policy.spec import PolicySpec
from m2distill_training.data.libero.hdf5_checks import member, reading
from m2distill_training.data.libero.reader import Demo, open_libero
from m2distill_training.data.review.episodes import DemoSet, Episode, Hdf5Set, open_set


@dataclass(frozen=True)
class MotionSource:
    """A motion, with what the set states about the simulated scene of its episode."""

    motion: RecordedMotion
    instruction: str
    task: str = ""  # SUITE/NAME, if the set names it
    start: np.ndarray | None = None  # state (D,) of the simulator before the first step, if the set has it


def read_motion(path: Path, name: str, tolerance_rad: float) -> MotionSource:
    """Return the motion of one episode.

    Args:
        path: HDF5 file, LeRobot dataset, bag or folder of bags.
        name: Name of the episode in the set, such as demo_0; empty: the first one.
        tolerance_rad: Distance of a joint from the recording that ends the replay.

    Raises:
        UserError: There is no such episode, or it cannot be replayed.
    """
    demos = open_set(path)
    episode = _find(demos, name)
    if episode.demo is None:
        raise DataError(f"{episode.name} cannot be replayed: {episode.rejected}")
    demo, task, start = episode.demo, "", None
    if isinstance(demos, Hdf5Set):
        with open_libero(path, "as_stored") as file:
            task = file.task
        start, added = _of_simulation(path, demo)
        demo = dataclasses.replace(demo, action=np.clip(demo.action + added, -1.0, 1.0).astype(np.float32))
    text = f"replay {episode.name}: {episode.instruction or 'no instruction'}"
    motion = RecordedMotion(_spec(episode.robot, demo), text, demo.action, demo.joint, tolerance_rad)
    return MotionSource(motion, episode.instruction, task, start)


def _find(demos: DemoSet, name: str) -> Episode:
    names = [each.name for each in demos.contents()]
    if not names:
        raise DataError(f"{demos.path} has no episode")
    if name and name not in names:
        raise DataError(unknown_name("episode", name, names))
    return next(episode for episode in demos.episodes() if episode.name == (name or names[0]))


def _spec(robot: PolicySpec, demo: Demo) -> PolicySpec:
    """Return the robot's spec with cameras of the recorded sizes: a replay needs no larger images."""
    cameras = tuple(
        dataclasses.replace(camera, height=demo.images[camera.name].shape[1], width=demo.images[camera.name].shape[2])
        for camera in robot.cameras
        if camera.name in demo.images
    )
    return dataclasses.replace(robot, cameras=cameras)


def _of_simulation(path: Path, demo: Demo) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the first state of the simulator, if the demonstration has one, and what was added to its actions."""
    with reading(f"{path}: {demo.name}", "collect it again"), h5py.File(path, "r", locking=False) as file:
        states = member(file, f"data/{demo.name}/states")
        added = member(file, f"data/{demo.name}/disturbances")
        start = np.asarray(states[0], np.float64) if isinstance(states, h5py.Dataset) and len(states) else None
        if not isinstance(added, h5py.Dataset):
            return start, np.zeros_like(demo.action)
        if added.shape != demo.action.shape:
            raise DataError(f"{path}: {demo.name}/disturbances has shape {added.shape}, expected {demo.action.shape}")
        return start, np.asarray(added, np.float32)
