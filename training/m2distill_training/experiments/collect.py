"""Collection of demonstrations by scripted experts: the attempts of m2distill_sim.collect, spread over workers."""

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from m2distill_policy.cameras import CAMERAS, Camera
from m2distill_policy.errors import UserError, require_at_least
from m2distill_policy.utils.files import folder_in_use
from m2distill_sim.assets import AssetSource, find_assets
from m2distill_sim.collect import (
    CollectSettings,
    attempt_job,
    attempts_done,
    is_finished,
    missing_attempts,
    open_attempts,
    unfinished_folder,
    write_demos,
)
from m2distill_sim.experts import check_expert
from m2distill_sim.probe import check_simulation
from m2distill_sim.suites import Task, find_task
from m2distill_training.execution.graph import Activity, run_graph
from m2distill_training.execution.jobs import Job, Outcome
from m2distill_training.execution.open import open_executor

LINE_EVERY_S = 5.0  # between progress lines if the output is not a terminal

Show = Callable[[Task, int, int, int], None]  # task, successes, attempts, requested episodes


def collect(
    suite: str,
    tasks: Sequence[int | str],
    episodes: int,
    out: str | Path,
    *,
    workers: int | None = 2,
    cluster: str | None = None,
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
        workers: processes, each with a simulator; None: WORKERS on this machine, all CPUs of a cluster.
        cluster: None for this machine, "auto" or HOST:PORT for a Ray cluster.
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
    if workers is not None:
        require_at_least(1, workers=workers)
    assets = find_assets() if assets is None else assets
    found = collect_tasks(suite, tasks, episodes, Path(out), seed=seed, size_px=size_px, assets=assets, cameras=cameras)
    if not all(each.ended for each in found):
        probe = functools.partial(check_simulation, {(suite, assets.name): assets.identity()})
        with (
            folder_in_use(Path(out)),
            open_executor(workers, cluster, Path(out), probe) as executor,
            _progress(progress) as show,
        ):
            for each in found:
                each.show = show
            run_graph(executor, found)
    return [each.path for each in found]


def collect_tasks(
    suite: str,
    tasks: Sequence[int | str],
    episodes: int,
    out: Path,
    *,
    seed: int = 0,
    size_px: int = 128,
    assets: AssetSource,
    cameras: Sequence[Camera] = CAMERAS,
) -> list["CollectTask"]:
    """Return an activity for each task; one whose file is complete has ended. Arguments and errors as for `collect`."""
    require_at_least(1, episodes=episodes)
    require_at_least(0, seed=seed)
    if not 16 <= size_px <= 1024:
        raise UserError(f"image_size_px is {size_px}, allowed 16 to 1024")
    settings = CollectSettings(seed, size_px, assets.identity(), cameras=tuple(cameras))
    requested = [find_task(suite, task) for task in tasks]
    if not requested or len(set(requested)) < len(requested):
        raise UserError(f"tasks {list(tasks)} given, expected at least one and no duplicates")
    check_expert(suite)
    return [CollectTask(task, out / f"{task.name}_demo.hdf5", episodes, settings, assets) for task in requested]


class CollectTask(Activity):
    """Attempts at one task until enough have succeeded, and then its file."""

    def __init__(self, task: Task, path: Path, episodes: int, settings: CollectSettings, assets: AssetSource):
        super().__init__(f"collect {path}", units=episodes, kind="collect")
        self.task, self.path, self.episodes, self.settings, self.assets = task, path, episodes, settings, assets
        self.show: Show = lambda *_: None
        self.ended = is_finished(path, settings, episodes)
        self.done = episodes if self.ended else 0
        self._folder = unfinished_folder(path.parent, task, settings)
        self._attempts = 0

    def jobs(self) -> list[Job]:
        """Return as many attempts as successes are missing. Raises UserError if the expert fails too often."""
        while missing := missing_attempts(self.task, self._folder, self._attempts, self.episodes, self.settings):
            self._attempts += missing
            if attempts := open_attempts(self._folder, self._attempts):
                return [self._job(attempt) for attempt in attempts]
        return []

    def take(self, outcome: Outcome) -> None:
        done = attempts_done(self._folder, self._attempts)
        self.done = min(self.episodes, sum(done.values()))
        self.show(self.task, sum(done.values()), len(done), self.episodes)

    def finish(self) -> None:
        write_demos(self.task, self.path, self._attempts, self.episodes, self.settings)

    def _job(self, attempt: int) -> Job:
        arguments = (self.task, self.assets, self.settings, self._folder.absolute(), attempt)
        return Job(f"{self.name} attempt {attempt}", attempt_job, arguments, group=self.name)


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
