"""Trainings of `m2distill demo`: the first task, then the second one by the method and, side by side, by the control.

The two trainings of the second task are jobs of one thread each (execution/), so that they end in the same weights side
by side and one after the other, as on a machine with one CPU.
"""

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path

from m2distill_training import presets
from m2distill_training.cli.progress import LINE_EVERY_S, progress_line, show_training
from m2distill_training.config import TrainConfig
from m2distill_training.engine.train import deferred_interrupt, train
from m2distill_training.engine.trainer import TrainProgress
from m2distill_training.execution.graph import run_graph
from m2distill_training.execution.jobs import Resources
from m2distill_training.execution.open import WORKERS, open_executor
from m2distill_training.experiments.study_jobs import StudyRun, TrainStage
from m2distill_training.runs.run_folder import RunFolder
from m2distill_training.strategies.configs import TERMS

CONTROL_BUDGET = 0.5  # of the method's gradient steps: fine-tuning forgets long before
STOP = ".stop"  # in the demo's folder: a training that finds it saves its state and ends


def config_of(preset: str, seed: int, strategy: str) -> TrainConfig:
    """Return the settings of the method or of the control."""
    config = dataclasses.replace(presets.preset(preset, strategy), seed=seed)
    if strategy == "m2distill":
        return config
    budget = max(1, round(config.optim.budget * CONTROL_BUDGET))
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, budget=budget))


def learn_first(config: TrainConfig, folder: Path, files: Sequence[Path]) -> None:
    """Learn the first task in the run folder of the method."""
    resume = (folder / "config.json").is_file()
    with show_training(config.strategy) as on_step:
        train(config, list(files), folder, resume=resume, last_stage=1, on_step=on_step)


def learn_second(
    configs: dict[str, TrainConfig], folders: dict[str, Path], files: Sequence[Path], workers: int | None = None
) -> None:
    """Learn the second task with every strategy, each from the first stage of the method.

    Args:
        configs: settings by strategy.
        folders: run folders by strategy, that of m2distill with its first stage.
        files: demonstrations of both tasks.
        workers: number of trainings at the same time; None: WORKERS, or the number of CPUs if it is smaller.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when the trainings have saved their state.
        UserError: a training cannot continue.
    """
    out = folders["m2distill"].absolute().parent
    stop_file, first = out / STOP, RunFolder(folders["m2distill"].absolute()).checkpoint(1)
    stop_file.unlink(missing_ok=True)
    trainings = []
    for strategy, config in configs.items():
        run = StudyRun(
            label=strategy,
            kind=strategy,
            folder=RunFolder(folders[strategy].absolute()),
            config=config,
            files=tuple(file.absolute() for file in files),
            instructions=None,
            stages=2,
            resources=Resources(),
            device="cpu",
            cache=None,
            stop_file=stop_file,
            start_from=None if strategy == "m2distill" else first,
        )
        trainings.append(TrainStage(run, 2, config.optim.budget, ()))
    lines = _Lines(trainings, folders)
    workers = workers or min(WORKERS, len(os.sched_getaffinity(0)))
    with open_executor(workers, None, out) as executor, deferred_interrupt() as interrupted:

        def stop() -> bool:
            if interrupted.is_set():
                stop_file.touch()
            return interrupted.is_set()

        try:
            if not run_graph(executor, trainings, stop=stop, on_look=lines.show):
                raise KeyboardInterrupt
        finally:
            stop_file.unlink(missing_ok=True)


class _Lines:
    """A line of progress of every training, from what it has logged; the rate is that of the last seconds."""

    def __init__(self, trainings: Sequence[TrainStage], folders: dict[str, Path]):
        self._trainings = dict(zip(folders, trainings, strict=True))
        self._folders = folders
        self._shown_at = time.monotonic()
        self._shown: dict[str, int] = {}  # gradient step by strategy

    def show(self) -> None:
        """Print what is new, every LINE_EVERY_S."""
        if time.monotonic() < self._shown_at + LINE_EVERY_S:
            return
        self._shown_at = time.monotonic()
        for strategy, folder in self._folders.items():
            logged = [line for line in RunFolder(folder).metrics() if line["stage"] == 2]
            if logged and logged[-1]["step"] != self._shown.get(strategy):
                self._shown[strategy] = logged[-1]["step"]
                print(progress_line(strategy, self._progress(strategy, logged[-1])), flush=True)

    def _progress(self, strategy: str, line: dict) -> TrainProgress:
        losses = {name: line[name] for name in ("loss", "bc", *TERMS) if name in line}
        steps = max(round(self._trainings[strategy].units), line["step"])
        return TrainProgress(2, 2, line["step"], steps, 0, losses, line["lr"], line["steps_per_s"])
