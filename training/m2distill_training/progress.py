"""Progress of training on the terminal: a bar, or, where the output is no terminal, a plain line every few seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from m2distill_training.loop import Progress as TrainProgress

LINE_EVERY_S = 5.0


@contextmanager
def show_training(label: str = "training") -> Iterator[Callable[[TrainProgress], None]]:
    """Gives the `on_step` of loop.train."""
    console = Console()
    if not console.is_terminal:
        yield _plain(label)
        return
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TextColumn("{task.fields[losses]}  {task.fields[rate]:.1f} it/s"), TimeRemainingColumn()]
    with Progress(*columns, console=console) as bars:
        tasks: dict[int, int] = {}

        def on_step(p: TrainProgress) -> None:
            if p.task_step not in tasks:
                tasks[p.task_step] = bars.add_task(f"{label} step {p.task_step + 1}/{p.task_steps}", total=p.steps,
                                                   losses="", rate=0.0)
            bars.update(tasks[p.task_step], completed=p.step, losses=_losses(p), rate=p.steps_per_s)

        yield on_step


def _plain(label: str) -> Callable[[TrainProgress], None]:
    shown_at = 0.0

    def on_step(p: TrainProgress) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if now - shown_at < LINE_EVERY_S and p.step != p.steps:
            return
        shown_at = now
        eta_s = (p.steps - p.step) / p.steps_per_s
        print(f"{label} step {p.task_step + 1}/{p.task_steps}  {p.step}/{p.steps}  {_losses(p)}  "
              f"{p.steps_per_s:.1f} it/s  eta {int(eta_s // 60)}:{int(eta_s % 60):02d}", flush=True)

    return on_step


def _losses(p: TrainProgress) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in p.losses.items())
