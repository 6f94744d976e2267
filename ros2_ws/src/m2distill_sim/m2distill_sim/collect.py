"""One attempt of a scripted expert, disturbed and recorded, and the LIBERO-format HDF5 files made of attempts.

    OUT/<task>_demo.hdf5        one file per task, the first N successful attempts in order of attempt
    OUT/.unfinished/<task>-<settings>/   finished attempts of an incomplete run, from which a second run resumes

Attempt k of a task starts from LIBERO's initial state DEMO_STATES[k], or from a newly drawn placement once those are
used. Its random numbers depend on (seed, task, k) alone. Therefore the result does not depend on the number of workers
or on interruptions, and it never contains a held-out initial state.

Format (LIBERO's and robomimic's): obs[j] is observed AFTER actions[j], states[j] is the state before it, and images are
stored bottom row first. The dataset `disturbances` is ours: what was added to `actions` when they were executed.
"""

import hashlib
import inspect
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np

from m2distill_policy.cameras import CAMERAS, Camera, camera_records, square_sizes
from m2distill_policy.errors import DataError, UserError
from m2distill_policy.utils.schema import with_schema, without_schema
from m2distill_sim import experts
from m2distill_sim.assets import AssetSource, find_assets
from m2distill_sim.experts import make_expert
from m2distill_sim.experts.noise import Disturbance
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.libero_writer import READ_ERRORS, SimulatedEpisode, observation_datasets, store_demo, write_task
from m2distill_sim.suites import DEMO_STATES, Task, initial_states

MAX_FAILURES = 3  # failed attempts per requested episode before collection stops
LINGER_STEPS = 4  # recorded after the expert is done, so that the episode ends at rest


@dataclass(frozen=True)
class CollectSettings:
    """Settings that, with the task, determine the content of a demonstration file."""

    seed: int
    size_px: int
    assets: str  # AssetSource.identity
    format: int = 1
    cameras: tuple[Camera, ...] = CAMERAS

    def to_json(self) -> dict:
        """Return the settings as JSON values; the cameras only if they are not those of the table."""
        values = {name: value for name, value in asdict(self).items() if name != "cameras"}
        return values if self.cameras == CAMERAS else {**values, "cameras": camera_records(self.cameras)}


def start_state(task: Task, attempt: int) -> np.ndarray | None:
    """Return the initial state of an attempt, or None if a new placement is drawn."""
    return initial_states(task.suite, task.name)[DEMO_STATES[attempt]] if attempt < len(DEMO_STATES) else None


def expert_digest() -> str:
    """Return a digest of the experts' source, which identifies their version."""
    folder = Path(inspect.getfile(experts)).parent
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()[:12]


def unfinished_folder(out: Path, task: Task, settings: CollectSettings) -> Path:
    """Return the folder of an incomplete run's attempts: <attempt>.hdf5, or an empty <attempt>.failed."""
    key = hashlib.sha256(json.dumps(settings.to_json()).encode()).hexdigest()[:8]
    return out / ".unfinished" / f"{task.name}-{key}"


def record_attempt(
    env: LiberoEnv, seed: int, attempt: int, cameras: Sequence[Camera] = CAMERAS
) -> SimulatedEpisode | None:
    """Return one disturbed attempt, or None if it failed. The environment must have the `cameras`.

    Successful attempts alone are rendered: they are executed a second time, with bit-identical states.
    """
    steps = _run_expert(env, _reset_attempt(env, seed, attempt))
    if steps is None:
        return None
    _reset_attempt(env, seed, attempt)
    rows: list[dict[str, np.ndarray]] = []
    for intent, added in steps:
        row = {"actions": intent, "disturbances": added, "states": env.state()}
        rows.append(row | observation_datasets(env.step(intent + added), cameras))
    return SimulatedEpisode.of_rows(rows, env.model_xml())


def _reset_attempt(env: LiberoEnv, seed: int, attempt: int) -> np.random.Generator:
    """Start an attempt; return the generator of its expert and disturbances."""
    rng = np.random.default_rng([seed, env.task.index, attempt])
    env.reset(start_state(env.task, attempt), seed=int(rng.integers(2**31)))
    return rng


def _run_expert(env: LiberoEnv, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Return intents and disturbances of an attempt from the current state, or None if it failed."""
    expert, disturbance = make_expert(env, rng), Disturbance(rng)
    steps: list[tuple[np.ndarray, np.ndarray]] = []
    linger = LINGER_STEPS
    while linger > 0:
        if len(steps) == expert.max_steps:
            return None
        intent = expert.act(env)
        steps.append((intent, disturbance.step(expert.phase, intent)))
        env.step(np.add(*steps[-1]), render=False)
        linger -= expert.done
    return steps if env.success() else None


def _is_attempted(folder: Path, attempt: int) -> bool:
    return (folder / f"{attempt}.hdf5").exists() or (folder / f"{attempt}.failed").exists()


def attempts_done(folder: Path, attempts: int) -> dict[int, bool]:
    """Return attempt -> success for the finished ones of the first `attempts`, in order."""
    return {
        attempt: (folder / f"{attempt}.hdf5").exists() for attempt in range(attempts) if _is_attempted(folder, attempt)
    }


_worker_envs: dict[tuple[Task, AssetSource, int, tuple[Camera, ...]], LiberoEnv] = {}  # at most one per worker process


def _worker_env(task: Task, assets: AssetSource, size_px: int, cameras: tuple[Camera, ...]) -> LiberoEnv:
    """Return this worker process's environment, whose creation takes longer than an episode."""
    key = (task, assets, size_px, cameras)
    if key not in _worker_envs:
        while _worker_envs:
            _worker_envs.popitem()[1].close()
        _worker_envs[key] = LiberoEnv(task.suite, task.index, assets, square_sizes(size_px, cameras), cameras)
    return _worker_envs[key]


def attempt_job(task: Task, assets: AssetSource, settings: CollectSettings, folder: Path, attempt: int) -> bool:
    """Run one attempt in a worker process and store it in `folder`; return True on success."""
    if assets.is_builtin:  # another machine has them elsewhere
        assets = find_assets("builtin")
    env = _worker_env(task, assets, settings.size_px, settings.cameras)
    episode = record_attempt(env, settings.seed, attempt, settings.cameras)
    if episode is None:
        temporary = folder / f"{attempt}.tmp"
        temporary.touch()
        temporary.rename(folder / f"{attempt}.failed")
        return False
    store_demo(folder / f"{attempt}.hdf5", episode)
    return True


def missing_attempts(task: Task, folder: Path, attempts: int, episodes: int, settings: CollectSettings) -> int:
    """Return how many attempts must follow the first `attempts`, all of which are finished.

    Raises:
        UserError: the expert has failed too often.
    """
    successes = sum(attempts_done(folder, attempts).values())
    if attempts - successes > MAX_FAILURES * episodes:
        raise UserError(
            f"the expert failed {attempts - successes} of {attempts} attempts at {task.name}; the assets "
            f"{settings.assets} may be damaged"
        )
    return max(0, episodes - successes)


def open_attempts(folder: Path, attempts: int) -> list[int]:
    """Return those of the first `attempts` that must be run, after removing what a killed worker left."""
    folder.mkdir(parents=True, exist_ok=True)
    for temporary in [*folder.glob("*.tmp"), *folder.glob(".*.tmp")]:
        temporary.unlink()
    return [attempt for attempt in range(attempts) if not _is_attempted(folder, attempt)]


def write_demos(task: Task, path: Path, attempts: int, episodes: int, settings: CollectSettings) -> None:
    """Write a task's file from the successes among the first `attempts`, and remove their folder."""
    folder = unfinished_folder(path.parent, task, settings)
    kept = [attempt for attempt, success in attempts_done(folder, attempts).items() if success]
    write_task(
        path,
        task,
        [folder / f"{attempt}.hdf5" for attempt in kept[:episodes]],
        settings.assets,
        True,
        {"collect_settings": json.dumps(with_schema(settings.to_json())), "experts": expert_digest()},
    )
    shutil.rmtree(folder)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def is_finished(path: Path, settings: CollectSettings, episodes: int) -> bool:
    """Return True if a task's file is complete. Raises DataError for a file of other settings or another origin."""
    if not path.exists():
        return False
    try:
        with h5py.File(path, "r", locking=False) as file:
            attributes = file["data"].attrs
            settings_found = without_schema(json.loads(attributes["collect_settings"]), path)
            found = settings_found | {"episodes": int(attributes["num_demos"])}
    except READ_ERRORS as error:
        raise DataError(f"{path} exists and was not written by collect ({error}); choose another folder") from error
    requested = settings.to_json() | {"episodes": episodes}
    if found != requested:
        different = ", ".join(
            f"{name} {found.get(name)} (requested: {requested.get(name)})"
            for name in requested | found
            if found.get(name) != requested.get(name)
        )
        raise DataError(f"{path} exists with other settings: {different}; choose another folder or remove the file")
    return True
