"""Collection of demonstrations: scripted experts, disturbed and recorded, as LIBERO-format HDF5.

    OUT/<task>_demo.hdf5        one file per task, the first N successful attempts in order of attempt
    OUT/.unfinished/<task>-<settings>/   finished attempts of an incomplete run, from which a second run resumes

Attempt k of a task starts from LIBERO's initial state DEMO_STATES[k], or from a newly drawn placement once those are
used. Its random numbers depend on (seed, task, k) alone. Therefore the result does not depend on the number of workers
or on interruptions, and it never contains a held-out initial state.

Format (LIBERO's and robomimic's): obs[j] is observed AFTER actions[j], states[j] is the state before it, and images are
stored bottom row first. The dataset `disturbances` is ours: what was added to `actions` when they were executed.
"""

import contextlib
import hashlib
import inspect
import json
import multiprocessing
import shutil
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np

from m2distill_policy.cameras import CAMERAS, Camera, camera_records, square_sizes
from m2distill_policy.errors import DataError, UserError, require_at_least
from m2distill_policy.utils.schema import with_schema, without_schema
from m2distill_sim import experts
from m2distill_sim.assets import AssetSource, find_assets
from m2distill_sim.experts import check_expert, make_expert
from m2distill_sim.experts.noise import Disturbance
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.libero_writer import READ_ERRORS, SimulatedEpisode, observation_datasets, store_demo, write_task
from m2distill_sim.suites import DEMO_STATES, Task, find_task, initial_states

LINGER_STEPS = 4  # recorded after the expert is done, so that the episode ends at rest
LINE_EVERY_S = 5.0  # between progress lines if the output is not a terminal
MAX_FAILURES = 3  # failed attempts per requested episode before collection stops


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


def collect(
    suite: str,
    tasks: Sequence[int | str],
    episodes: int,
    out: str | Path,
    *,
    workers: int = 2,
    seed: int = 0,
    size_px: int = 128,
    assets: AssetSource | None = None,
    cameras: Sequence[Camera] = CAMERAS,
    progress: bool = True,
) -> list[Path]:
    """Collect demonstrations. An interrupted run with the same arguments resumes; finished files are not changed.

    Args:
        suite: suite with an expert.
        tasks: indices or names.
        episodes: successful demonstrations of each task.
        out: folder of the files.
        workers: processes, each with a simulator.
        seed: of the experts' variation, of the disturbances and of drawn placements.
        size_px: side of the images of cameras that state no size.
        assets: None: see find_assets.
        cameras: views that are recorded.
        progress: print progress.

    Returns:
        The files, in the order of `tasks`.

    Raises:
        UserError: an argument is out of range, or the expert fails too often.
        DataError: a file of other settings exists.
        AssetError: the assets are missing or incomplete.
    """
    require_at_least(1, episodes=episodes, workers=workers)
    require_at_least(0, seed=seed)
    if not 16 <= size_px <= 1024:
        raise UserError(f"image_size_px is {size_px}, allowed 16 to 1024")
    assets = find_assets() if assets is None else assets
    settings = CollectSettings(seed, size_px, assets.identity(), cameras=tuple(cameras))
    requested = [find_task(suite, task) for task in tasks]
    if not requested or len(set(requested)) < len(requested):
        raise UserError(f"tasks {list(tasks)} given, expected at least one and no duplicates")
    check_expert(suite)
    out = Path(out)
    paths = [out / f"{task.name}_demo.hdf5" for task in requested]
    open_tasks = [
        (task, path) for task, path in zip(requested, paths, strict=True) if not _is_finished(path, settings, episodes)
    ]
    if open_tasks:
        out.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")  # a GL context does not survive fork
        with ProcessPoolExecutor(workers, context, ignore_interrupt) as pool, _progress(progress) as show:
            for task, path in open_tasks:
                _collect_task(pool, show, task, path, episodes, settings, assets)
    return paths


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
    datasets = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    last = np.zeros(len(rows), np.uint8)
    last[-1] = 1
    return SimulatedEpisode(datasets | {"rewards": last, "dones": last}, env.model_xml())


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


def _collect_task(
    pool, show, task: Task, path: Path, episodes: int, settings: CollectSettings, assets: AssetSource
) -> None:
    """Run attempts of a task until `episodes` have succeeded, and write its file."""
    folder = unfinished_folder(path.parent, task, settings)
    folder.mkdir(parents=True, exist_ok=True)
    for temporary in folder.glob("*.tmp"):  # of a run that was killed while writing
        temporary.unlink()
    attempts = 0
    while True:
        done = _attempts_done(folder, attempts)
        kept = [attempt for attempt, succeeded in done.items() if succeeded]
        show(task, len(kept), attempts, episodes)
        if len(kept) >= episodes:
            break
        if attempts - len(kept) > MAX_FAILURES * episodes:
            raise UserError(
                f"the expert failed {attempts - len(kept)} of {attempts} attempts at {task.name}; "
                f"the assets {settings.assets} may be damaged"
            )
        attempts += episodes - len(kept)
        todo = [attempt for attempt in range(attempts) if attempt not in done and not _is_attempted(folder, attempt)]
        jobs = [pool.submit(_attempt_job, task, assets, settings, attempt, folder) for attempt in todo]
        try:
            for job in as_completed(jobs):
                job.result()
                done = _attempts_done(folder, attempts)
                show(task, sum(done.values()), len(done), episodes)
        except BaseException:
            for job in jobs:
                job.cancel()
            raise
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


def _is_attempted(folder: Path, attempt: int) -> bool:
    return (folder / f"{attempt}.hdf5").exists() or (folder / f"{attempt}.failed").exists()


def _attempts_done(folder: Path, attempts: int) -> dict[int, bool]:
    """Return attempt -> success for the finished ones of the first `attempts`, in order."""
    return {
        attempt: (folder / f"{attempt}.hdf5").exists() for attempt in range(attempts) if _is_attempted(folder, attempt)
    }


def ignore_interrupt() -> None:
    """Ignore Ctrl-C in a worker process; the parent finishes running attempts and starts no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


_worker_envs: dict[tuple[Task, AssetSource, int, tuple[Camera, ...]], LiberoEnv] = {}  # at most one per worker process


def _worker_env(task: Task, assets: AssetSource, size_px: int, cameras: tuple[Camera, ...]) -> LiberoEnv:
    """Return this worker process's environment, whose creation takes longer than an episode."""
    key = (task, assets, size_px, cameras)
    if key not in _worker_envs:
        while _worker_envs:
            _worker_envs.popitem()[1].close()
        _worker_envs[key] = LiberoEnv(task.suite, task.index, assets, square_sizes(size_px, cameras), cameras)
    return _worker_envs[key]


def _attempt_job(task: Task, assets: AssetSource, settings: CollectSettings, attempt: int, folder: Path) -> bool:
    """Run one attempt in a worker process and store it in `folder`; return True on success."""
    env = _worker_env(task, assets, settings.size_px, settings.cameras)
    episode = record_attempt(env, settings.seed, attempt, settings.cameras)
    if episode is None:
        temporary = folder / f"{attempt}.tmp"
        temporary.touch()
        temporary.rename(folder / f"{attempt}.failed")
        return False
    store_demo(folder / f"{attempt}.hdf5", episode)
    return True


def _is_finished(path: Path, settings: CollectSettings, episodes: int) -> bool:
    """Return True if a task's file is complete. Raises DataError for a file of other settings or another origin."""
    if not path.exists():
        return False
    try:
        with h5py.File(path) as file:
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


@contextlib.contextmanager
def _progress(visible: bool):
    """Yield a function of (task, successes, attempts, requested episodes) that shows progress.

    It draws a bar for each task or, if the output is not a terminal, prints a line every few seconds.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console()
    bars: dict = {}  # task -> bar
    printed: dict[Task, tuple[float, str]] = {}  # task -> time and text of its last line
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not (visible and console.is_terminal),
    ) as progress:

        def show(task: Task, successes: int, attempts: int, episodes: int) -> None:
            if task not in bars:
                bars[task] = progress.add_task(task.instruction, total=episodes)
            progress.update(bars[task], completed=successes)
            now, line = time.monotonic(), f"{task.instruction}: {successes}/{episodes}, {attempts - successes} failed"
            before_s, before = printed.get(task, (0.0, ""))
            due = successes == episodes or now > before_s + LINE_EVERY_S
            if visible and not console.is_terminal and due and line != before:
                printed[task] = now, line
                print(line, flush=True)

        yield show
