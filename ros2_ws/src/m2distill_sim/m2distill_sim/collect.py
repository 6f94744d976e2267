"""Demonstrations: scripted experts, disturbed and recorded, as LIBERO-format HDF5.

    OUT/<task>_demo.hdf5        one file per task, the first N successful attempts in order of attempt
    OUT/.unfinished/<task>-<settings>/   finished attempts of a run that is not complete; a second run goes on from them

Attempt k of a task starts from LIBERO's initial state DEMO_STATES[k], and from a newly drawn placement once those are
used up; its random numbers come from (seed, task, k) alone. So the result does not depend on the number of workers or
on interruptions, and held-out initial states never occur in it.

Format (LIBERO's and robomimic's): obs[j] is what was seen AFTER actions[j], states[j] the state before it, images are
stored bottom row first. Ours beside it: `disturbances`, what was added to `actions` when they were executed.
"""

import contextlib
import functools
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

from m2distill_policy.errors import DataError, UserError, require_at_least
from m2distill_sim import experts
from m2distill_sim.assets import AssetSource, find_assets
from m2distill_sim.experts import check_expert, make_expert
from m2distill_sim.experts.noise import Disturbance
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.libero_writer import DAMAGE, SimulatedEpisode, observed, store_demo, write_task
from m2distill_sim.suites import DEMO_STATES, Task, find_task, initial_states

LINGER_STEPS = 4  # recorded after the expert is done, so that the end is seen as rest
LINE_EVERY_S = 5.0  # of progress, where the output is no terminal
MAX_FAILURES = 3  # attempts per wanted episode before collection gives up


@dataclass(frozen=True)
class CollectSettings:
    """What, besides the task, decides the content of a demonstration file."""

    seed: int
    size_px: int
    assets: str  # AssetSource.identity
    format: int = 1


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
    progress: bool = True,
) -> list[Path]:
    """Write `episodes` successful demonstrations of each task to `out`; returns the files in the order of `tasks`.

    Goes on from an interrupted run with the same arguments, and leaves finished files alone. Raises UserError,
    DataError (a file of other settings is in the way) or AssetError.
    """
    require_at_least(1, episodes=episodes, workers=workers)
    require_at_least(0, seed=seed)
    if not 16 <= size_px <= 1024:
        raise UserError(f"image_size_px is {size_px}, allowed 16 to 1024")
    assets = find_assets() if assets is None else assets
    settings = CollectSettings(seed, size_px, assets.identity())
    wanted = [find_task(suite, task) for task in tasks]
    if not wanted or len(set(wanted)) < len(wanted):
        raise UserError(f"tasks {list(tasks)} given, expected at least one and none twice")
    check_expert(suite)
    out = Path(out)
    paths = [out / f"{task.name}_demo.hdf5" for task in wanted]
    open_tasks = [
        (task, path) for task, path in zip(wanted, paths, strict=True) if not _is_finished(path, settings, episodes)
    ]
    if open_tasks:
        out.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")  # a GL context does not survive fork
        with ProcessPoolExecutor(workers, context, ignore_interrupt) as pool, _progress(progress) as show:
            for task, path in open_tasks:
                _collect_task(pool, show, task, path, episodes, settings, assets)
    return paths


def start_state(task: Task, attempt: int) -> np.ndarray | None:
    """The initial state of an attempt, or None where a new placement is drawn."""
    return initial_states(task.suite, task.name)[DEMO_STATES[attempt]] if attempt < len(DEMO_STATES) else None


def experts_source() -> str:
    """Which experts: a digest of their source."""
    folder = Path(inspect.getfile(experts)).parent
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()[:12]


def unfinished_folder(out: Path, task: Task, settings: CollectSettings) -> Path:
    """Where the attempts of a run that is not complete are kept: <attempt>.hdf5, or an empty <attempt>.failed."""
    key = hashlib.sha256(json.dumps(asdict(settings)).encode()).hexdigest()[:8]
    return out / ".unfinished" / f"{task.name}-{key}"


def record_attempt(env: LiberoEnv, seed: int, attempt: int) -> SimulatedEpisode | None:
    """One disturbed attempt, or None where it failed. Needs both cameras. They see successful attempts alone: those are
    executed once more for them, with the same outcome to the last bit."""

    def reset() -> np.random.Generator:
        rng = np.random.default_rng([seed, env.task.index, attempt])
        env.reset(start_state(env.task, attempt), seed=int(rng.integers(2**31)))
        return rng

    steps = _search(env, reset())
    if steps is None:
        return None
    reset()
    rows: list[dict[str, np.ndarray]] = []
    for intent, added in steps:
        row = {"actions": intent, "disturbances": added, "states": env.state()}
        rows.append(row | observed(env.step(intent + added)))
    datasets = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    last = np.zeros(len(rows), np.uint8)
    last[-1] = 1
    return SimulatedEpisode(datasets | {"rewards": last, "dones": last}, env.model_xml())


def _search(env: LiberoEnv, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Intents and disturbances of an attempt from where `env` is, or None where it failed."""
    expert, disturbance = make_expert(env, rng), Disturbance(rng)
    steps: list[tuple[np.ndarray, np.ndarray]] = []
    linger = LINGER_STEPS
    while linger > 0:
        if len(steps) == expert.most_steps:
            return None
        intent = expert.act(env)
        steps.append((intent, disturbance.step(expert.phase, intent)))
        env.step(np.add(*steps[-1]), render=False)
        linger -= expert.done
    return steps if env.success() else None


def _collect_task(
    pool, show, task: Task, path: Path, episodes: int, settings: CollectSettings, assets: AssetSource
) -> None:
    folder = unfinished_folder(path.parent, task, settings)
    folder.mkdir(parents=True, exist_ok=True)
    for stray in folder.glob("*.tmp"):  # of a run that was killed while writing
        stray.unlink()
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
        todo = [attempt for attempt in range(attempts) if attempt not in done and not _exists(folder, attempt)]
        jobs = [pool.submit(_work, task, assets, settings, attempt, folder) for attempt in todo]
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
        {"collect_settings": json.dumps(asdict(settings)), "experts": experts_source()},
    )
    shutil.rmtree(folder)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def _exists(folder: Path, attempt: int) -> bool:
    return (folder / f"{attempt}.hdf5").exists() or (folder / f"{attempt}.failed").exists()


def _attempts_done(folder: Path, attempts: int) -> dict[int, bool]:
    """Attempt -> success, of the first `attempts`, in order."""
    return {attempt: (folder / f"{attempt}.hdf5").exists() for attempt in range(attempts) if _exists(folder, attempt)}


def ignore_interrupt() -> None:
    """In a worker process: Ctrl-C is the parent's, which lets what runs finish and starts no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@functools.lru_cache(maxsize=1)
def _worker_env(task: Task, assets: AssetSource, size_px: int) -> LiberoEnv:
    """This worker process's environment: making one takes longer than an episode."""
    return LiberoEnv(task.suite, task.index, assets, {"agentview": (size_px, size_px), "wrist": (size_px, size_px)})


def _work(task: Task, assets: AssetSource, settings: CollectSettings, attempt: int, folder: Path) -> bool:
    """In a worker process: one attempt, stored in `folder`; whether it succeeded."""
    episode = record_attempt(_worker_env(task, assets, settings.size_px), settings.seed, attempt)
    if episode is None:
        temporary = folder / f"{attempt}.tmp"
        temporary.touch()
        temporary.rename(folder / f"{attempt}.failed")
        return False
    store_demo(folder / f"{attempt}.hdf5", episode)
    return True


def _is_finished(path: Path, settings: CollectSettings, episodes: int) -> bool:
    if not path.exists():
        return False
    try:
        with h5py.File(path) as file:
            attributes = file["data"].attrs
            found = json.loads(attributes["collect_settings"]) | {"episodes": int(attributes["num_demos"])}
    except DAMAGE as error:
        raise DataError(f"{path} exists and was not written by collect ({error}); choose another folder") from error
    asked = asdict(settings) | {"episodes": episodes}
    if found != asked:
        different = ", ".join(
            f"{name} {found.get(name)} (asked: {asked[name]})" for name in asked if found.get(name) != asked[name]
        )
        raise DataError(f"{path} exists with other settings: {different}; choose another folder or remove the file")
    return True


@contextlib.contextmanager
def _progress(visible: bool):
    """Gives a function of (task, successes, attempts, episodes wanted): a bar for each task, or, where the output is no
    terminal, a line every few seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console()
    bars: dict = {}  # by task
    printed: dict[Task, tuple[float, str]] = {}  # when the last line was printed, and the line
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
