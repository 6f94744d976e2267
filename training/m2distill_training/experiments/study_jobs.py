"""Activities of a study: training of one stage, evaluation of one checkpoint, and the end of a run."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m2distill_training.config import TrainConfig
from m2distill_training.evaluation.evaluate import EPISODES, evaluate_run
from m2distill_training.evaluation.rollout_jobs import Rollouts
from m2distill_training.evaluation.run_specs import run_specs
from m2distill_training.execution.graph import Activity
from m2distill_training.execution.jobs import Job, Outcome, Resources
from m2distill_training.experiments.study_results import write_tables
from m2distill_training.runs.records import BusyError, read_lines, write_lines
from m2distill_training.runs.run_folder import RunFolder

LOOK_S = 1.0  # between looks at the stop file
BUSY_S = 120.0  # a worker of a lost node may hold the lock of a run for a while


@dataclass(frozen=True)
class StudyRun:
    """One run of a study, and how its stages are trained."""

    label: str  # for messages
    kind: str  # runs of one kind take about the same time
    folder: RunFolder
    config: TrainConfig
    files: tuple[Path, ...]
    instructions: tuple[str, ...] | None  # in place of those in the files
    stages: int
    resources: Resources
    device: str
    cache: Path | None
    stop_file: Path
    start_from: Path | None = None


class TrainStage(Activity):
    """One stage of a run, which may take several jobs if the training is stopped."""

    def __init__(self, run: StudyRun, stage: int, units: float, after: Sequence[Activity]):
        super().__init__(f"{run.label}, stage {stage}: train", after, units, f"train {run.kind}")
        self._run, self._stage = run, stage
        self.ended = run.folder.checkpoint(stage).is_dir()
        self.done = units if self.ended else self.progress()

    def progress(self) -> float:
        """Return the gradient steps that have been logged; 0 for a budget in epochs, whose steps are not known here."""
        if self.ended or self._run.config.optim.budget_unit != "steps":
            return self.done
        steps = [line["step"] for line in self._run.folder.metrics() if line["stage"] == self._stage]
        return min(self.units, max(steps, default=0))

    def jobs(self) -> list[Job]:
        run = self._run
        if run.folder.checkpoint(self._stage).is_dir():
            return []
        inputs = (*run.files, *([run.start_from] if run.start_from else []))
        return [Job(self.name, train_stage, (run, self._stage), run.resources, run.resources.cpus, inputs=inputs)]

    def take(self, outcome: Outcome) -> None:
        self.done = self.progress()


def train_stage(run: StudyRun, stage: int) -> bool:
    """Train a stage, from its saved state if there is one; return False if the stop file ended it before."""
    from m2distill_training.engine.train import train
    from m2distill_training.utils.device import usable_device

    looked, found = 0.0, False

    def stop() -> bool:
        nonlocal looked, found
        if time.monotonic() > looked + LOOK_S:
            looked, found = time.monotonic(), run.stop_file.exists()
        return found

    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            train(
                run.config,
                list(run.files),
                run.folder.path,
                resume=(run.folder.path / "config.json").is_file(),
                device=usable_device(run.device),
                start_from=run.start_from,
                cache=run.cache,
                instructions=run.instructions,
                last_stage=stage,
                stop=stop,
            )
            return True
        except KeyboardInterrupt:  # the state is saved
            return False
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_S)


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of all episodes of a study's suite."""

    suite: str
    episodes: int
    sampling: str
    max_steps: int
    assets: str | None
    starts: str
    environments: int
    episodes_earlier: int | None

    def specs(self, run: StudyRun, stage: int) -> list:
        """Return the episodes after a stage, and those of its learning curve."""
        settings = (self.episodes, self.sampling, run.config.seed, self.max_steps, self.assets, self.starts)
        numbers = (self.environments, self.episodes_earlier, run.stages)
        stages, curves = run_specs(run.folder.path, [self.suite], *settings, *numbers)
        return [*(spec for point in curves[stage - 1] for spec in point), *stages[stage - 1]]

    def finish(self, run: StudyRun) -> None:
        """Write the evaluation of a run, whose episodes are all in its folder."""
        evaluate_run(
            run.folder.path,
            [self.suite],
            self.episodes,
            sampling=self.sampling,
            seed=run.config.seed,
            max_steps=self.max_steps,
            workers=0,
            assets=self.assets,
            starts=self.starts,
            environments=self.environments,
            episodes_earlier=self.episodes_earlier,
        )


class EvaluateStage(Activity):
    """Episodes of one checkpoint and of its learning curve, as soon as it exists."""

    def __init__(
        self,
        run: StudyRun,
        stage: int,
        settings: EvaluationSettings,
        units: float,
        after: Sequence[Activity],
        first: Path,
    ):
        super().__init__(f"{run.label}, stage {stage}: evaluate", after, units, "evaluate")
        self._run, self._stage, self._settings, self._first = run, stage, settings, first
        self._rollouts: Rollouts | None = None

    def jobs(self) -> list[Job]:
        if self._rollouts is not None:
            return []
        episodes, shared = self._run.folder.path / EPISODES, self._first / EPISODES
        if not episodes.is_file() and shared.is_file():  # the first stage has been evaluated once for all runs
            write_lines(episodes, [line | {"video": None} for line in read_lines(shared)])
        self._rollouts = Rollouts(self._settings.specs(self._run, self._stage), episodes.absolute())
        self.units = len(self._rollouts.specs)
        self.done = self.units - len(self._rollouts.missing)
        return self._rollouts.jobs()

    def take(self, outcome: Outcome) -> None:
        assert self._rollouts is not None
        self.done += len(self._rollouts.take(outcome))


class FinishRun(Activity):
    """The evaluation of a run as a whole, written by this process."""

    def __init__(self, run: StudyRun, out: Path, settings: EvaluationSettings, after: Sequence[Activity]):
        super().__init__(f"{run.label}: results", after, 0, "results")
        self._run, self._out, self._settings = run, out, settings

    def jobs(self) -> list[Job]:
        return []

    def finish(self) -> None:
        self._settings.finish(self._run)
        write_tables(self._out)
