"""Import of robosuite's packaged human demonstrations of Lift as a LIBERO-format file, a task like any other.

robosuite recorded the simulator's states at 20 Hz and the keyboard's commands: single steps of full deflection, with
nothing in nine steps of ten, from which a policy would learn to wait. The file made here keeps the states and derives
the actions from their motion: at every step in which the hand or the fingers move, it stores the OSC_POSE action that
would continue this motion. Images are rendered from the states, each before its action. More demonstrations can be
generated from these (moved_demos.py).
"""

import hashlib
import itertools
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from m2distill_policy.cameras import square_sizes
from m2distill_policy.errors import DataError, UserError, require_at_least
from m2distill_policy.utils.files import folder_in_use
from m2distill_sim import lift
from m2distill_sim.arm_env import SimObservation
from m2distill_sim.libero_writer import SimulatedEpisode, observation_datasets, store_demo, write_task
from m2distill_sim.lift_env import LiftEnv
from m2distill_sim.suites import find_task
from m2distill_training.data.libero.hdf5_checks import member, reading
from m2distill_training.experiments.moved_demos import HandPath, Pose, attempt, cube_pose, faster, path_of

STATE_WIDTH = 32  # time, 16 positions, 15 velocities
STILL_M, FINGERS_STILL_M = 3e-4, 1e-4  # motion in a step below which hand and fingers rest
MAX_ATTEMPTS = 8  # for each demonstration to be generated


@dataclass(frozen=True)
class Recording:
    """One demonstration as robosuite stored it."""

    name: str
    states: np.ndarray  # (S, 32) float64
    gripper: np.ndarray  # (S,) float64, -1 open, 1 closed
    cube_half_m: tuple[float, float, float]
    model_xml: str


def import_lift(out: Path, source: Path | None = None, size_px: int = 128, generate: int = 0, seed: int = 0) -> Path:
    """Write `lift_demo.hdf5` in the folder `out` and return its path.

    Args:
        out: a folder.
        source: robosuite's `demo.hdf5`; None: that of its wheel.
        size_px: side of the images.
        generate: demonstrations to be generated from the recorded ones, which follow these in the file.
        seed: of the placements and disturbances of generated ones.

    Raises:
        DataError: a file of another task, robot or controller, actions that are not finite or out of range, or motions
            that lift the cube too seldom when they are moved.
        UserError: an argument is out of range.
    """
    if not 16 <= size_px <= 1024:
        raise UserError(f"image_size_px is {size_px}, allowed 16 to 1024")
    require_at_least(0, generate=generate, seed=seed)
    source = source or lift.assets().path / "demonstrations" / "lift" / "demo.hdf5"
    task = find_task(lift.SUITE, lift.NAME)
    path = out / f"{task.name}_demo.hdf5"
    recordings = list(read_recordings(source))
    if not recordings:
        raise DataError(f"{source} has no demonstrations")
    with (
        folder_in_use(out),
        LiftEnv(square_sizes(size_px)) as env,
        tempfile.TemporaryDirectory(prefix=".lift-", dir=out) as folder,
    ):
        files: list[Path] = []
        names: list[str] = []
        episodes = itertools.chain(
            ((recording.name, replay(env, recording)) for recording in recordings),
            generated(env, recordings, generate, seed),
        )
        for name, episode in episodes:
            files.append(Path(folder) / f"{len(files)}.hdf5")
            store_demo(files[-1], episode)
            names.append(name)
        origin = {
            "source": "robosuite, human demonstrations by keyboard",
            "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            "size_px": str(size_px),
            "source_demos": json.dumps(names),
        }
        write_task(path, task, files, env.assets.label, False, origin)
    return path


def generated(
    env: LiftEnv, recordings: list[Recording], number: int, seed: int
) -> Iterator[tuple[str, SimulatedEpisode]]:
    """Yield name and episode of demonstrations at new placements, from each recording in turn.

    Raises DataError if too few attempts succeed.
    """
    if number == 0:
        return
    paths = [recorded_path(env, recording) for recording in recordings]
    env.set_cube((lift.CUBE_HALF_M,) * 3)
    found = 0
    for number_of_attempt in range(MAX_ATTEMPTS * number):
        which = number_of_attempt % len(recordings)
        episode = attempt(env, *paths[which], np.random.default_rng([seed, number_of_attempt]))
        if episode is not None:
            found += 1
            yield f"{recordings[which].name}, moved, attempt {number_of_attempt}", episode
        if found == number:
            return
    raise DataError(
        f"{found} of {MAX_ATTEMPTS * number} attempts lifted the cube along moved motions, expected {number}; the "
        "recordings hold motions that do not lift it"
    )


def recorded_path(env: LiftEnv, recording: Recording) -> tuple[HandPath, Pose]:
    """Return the path of the hand where something moves, with a faster way to the grasp, and the cube's first pose."""
    seen, kept = _seen(env, recording)
    env.show(recording.states[0])
    path = path_of([seen[i] for i in (*kept, len(seen) - 1)], recording.gripper[kept])
    return faster(path), cube_pose(env)


def _seen(env: LiftEnv, recording: Recording) -> tuple[list[SimObservation], np.ndarray]:
    """Return what is seen at each recorded state, without images, and after which of them something moves.

    Raises DataError if nothing does.
    """
    env.set_cube(recording.cube_half_m)
    seen = []
    for state in recording.states:
        env.show(state)
        seen.append(env.observe(render=False))
    kept = moving(seen)
    if not len(kept):
        raise DataError(f"{recording.name}: neither the hand nor the fingers move")
    return seen, kept


def read_recordings(source: Path) -> Iterator[Recording]:
    try:
        file = h5py.File(source, "r", locking=False)
    except OSError as error:
        raise DataError(f"{source}: not a readable HDF5 file ({error}); give robosuite's demo.hdf5") from None
    with file, reading(str(source), "it is not as robosuite 1.4 records demonstrations"):
        data = _need(file, "data")
        info = json.loads(data.attrs["env_info"])
        controller = info["controller_configs"]
        found = (info["env_name"], info["robots"], controller["type"], controller["output_max"])
        expected = ("Lift", "Panda", "OSC_POSE", [0.05] * 3 + [0.5] * 3)
        if found != expected:
            raise DataError(f"{source} was recorded with {found}, expected {expected}")
        for name in sorted(data, key=lambda name: int(name.removeprefix("demo_"))):
            yield _read(source, name, data)


def _need(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset:
    found = member(group, path)
    if found is None:
        raise KeyError(f"it lacks {path}")
    return found


def _read(source: Path, name: str, data: h5py.Group) -> Recording:
    states, actions = (_need(data, f"{name}/{key}")[:] for key in ("states", "actions"))
    xml = data[name].attrs["model_file"]
    if states.ndim != 2 or states.shape[1] != STATE_WIDTH or actions.shape != (len(states), 7):
        raise DataError(
            f"{source}: {name} has states {states.shape} and actions {actions.shape}, expected (S, "
            f"{STATE_WIDTH}) and (S, 7)"
        )
    if not (np.isfinite(states).all() and np.isfinite(actions).all()):
        raise DataError(f"{source}: {name} holds numbers that are not finite")
    size = re.search(r'<geom name="cube_g0" size="([^"]*)"', xml)
    half_m = tuple(float(x) for x in size.group(1).split()) if size else ()
    if len(half_m) != 3 or not all(0 < x < 1 for x in half_m):
        raise DataError(f"{source}: {name} has a cube of half sides {half_m} m, expected three numbers below 1")
    return Recording(name, states, np.sign(actions[:, 6]), half_m, xml)


def replay(env: LiftEnv, recording: Recording) -> SimulatedEpisode:
    """The moments of the recording in which something moves, with images and derived actions."""
    seen, kept = _seen(env, recording)
    actions = path_of([seen[i] for i in (*kept, len(seen) - 1)], recording.gripper[kept]).actions()
    if not np.isfinite(actions).all() or np.abs(actions).max() > 1:
        raise DataError(
            f"{recording.name}: derived actions reach {np.abs(actions).max():.3g}, allowed -1 to 1; this "
            "is no motion that the controller made"
        )
    rows = []
    for i, action in zip(kept, actions, strict=True):
        env.show(recording.states[i])
        rows.append({"actions": action, "states": recording.states[i], **observation_datasets(env.observe())})
    return SimulatedEpisode.of_rows(rows, recording.model_xml)


def moving(seen: list[SimObservation]) -> np.ndarray:
    """(T,) int: the steps after which the hand or the fingers are elsewhere."""
    hand = np.linalg.norm(np.diff([o.ee_pos for o in seen], axis=0), axis=1)
    fingers = np.abs(np.diff([o.gripper_positions for o in seen], axis=0)).max(1)
    return np.flatnonzero((hand > STILL_M) | (fingers > FINGERS_STILL_M))
