"""Progress on the terminal: a bar, or plain lines if the output is not a terminal.

Training prints a line every few seconds, an evaluation one for each episode.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from m2distill_training.engine.trainer import TrainProgress
from m2distill_training.evaluation.rollout_jobs import ProgressCallbacks
from m2distill_training.evaluation.rollout_specs import RolloutResult, RolloutSpec

LINE_EVERY_S = 5.0


@contextmanager
def show_training(label: str = "training") -> Iterator[Callable[[TrainProgress], None]]:
    """Give the `on_step` of engine.train."""
    console = Console()
    if not console.is_terminal:
        yield _plain(label)
        return
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[losses]}  {task.fields[rate]:.1f} it/s  {task.fields[eta]}"),
    ]
    with Progress(*columns, console=console) as bars:
        tasks: dict[int, TaskID] = {}

        def on_step(p: TrainProgress) -> None:
            if p.stage not in tasks:
                tasks[p.stage] = bars.add_task(
                    f"{label} stage {p.stage}/{p.stages}", total=p.steps, losses="", rate=0.0, eta=""
                )
            bars.update(tasks[p.stage], completed=p.step, losses=_losses(p), rate=p.steps_per_s, eta=_eta(p))

        yield on_step


def _plain(label: str) -> Callable[[TrainProgress], None]:
    shown_at = 0.0

    def on_step(p: TrainProgress) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if now - shown_at < LINE_EVERY_S and p.step != p.steps:
            return
        shown_at = now
        print(progress_line(label, p), flush=True)

    return on_step


def progress_line(label: str, p: TrainProgress) -> str:
    """Return one line about the training after a gradient step."""
    return f"{label} stage {p.stage}/{p.stages}  {p.step}/{p.steps}  {_losses(p)}  {p.steps_per_s:.1f} it/s  {_eta(p)}"


def _eta(p: TrainProgress) -> str:
    """Return the time until the last stage ends."""
    minutes, seconds = divmod(int(p.seconds_left), 60)
    return f"eta {minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"eta {minutes}:{seconds:02d}"


def _losses(p: TrainProgress) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in p.losses.items())


@contextmanager
def show_episodes() -> Iterator[ProgressCallbacks]:
    """Yield the `callbacks` of evaluate_run and evaluate_checkpoint."""
    console = Console(highlight=False)
    total = done = successes = 0
    columns = [
        TextColumn("episodes"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[successes]} successes"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task("", successes=0, total=None)

        def begin(episodes: int) -> None:
            nonlocal total
            total += episodes  # a proof evaluates one checkpoint after the other
            bars.update(bar, total=total)

        def result(result: RolloutResult) -> None:
            nonlocal done, successes
            done, successes = done + 1, successes + result.success
            outcome = "success" if result.success else "failure" + (f" ({result.held})" if result.held else "")
            say(f"{done}/{total}  {_episode(result.spec)}: {outcome} after {result.steps} steps")
            bars.update(bar, completed=done, successes=successes)

        def repeat(job: RolloutSpec, reason: str) -> None:
            say(f"{_episode(job)}: once more, for {reason}")

        def say(line: str) -> None:
            console.print(line, soft_wrap=True, markup=False)
            console.file.flush()

        yield ProgressCallbacks(begin, result, repeat)


def _episode(job: RolloutSpec) -> str:
    return f"{job.suite} task {job.task} state {job.state}"
