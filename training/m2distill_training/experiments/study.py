"""Experiment of `m2distill study`: strategies and ablations on the same demonstrations and first stage.

    OUT/plan.json           the last plan
    OUT/status.json         what is done, running and left, see study_status.py
    OUT/study.json          what all runs share; a study with other settings in the same folder is rejected
    OUT/data/               demonstrations that were collected, one file per task
    OUT/runs/<variant>-<seed>/   run folders; most of one seed share the first stage, in which strategies do not differ
    OUT/results.json, results.md, comparison.md, report.html    see study_results.py

With several suites the last four are in OUT/<suite>/. The work is a graph of jobs (execution/graph.py): demonstrations,
the shared first stage, the stages of each run in order, and the evaluation of each checkpoint as soon as it exists.
Finished runs, stages and episodes are not repeated: the same command continues after an interruption, and one with
further strategies or seeds adds to the study.
"""

import dataclasses
import functools
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from m2distill_policy.errors import UserError, unknown_name
from m2distill_sim.probe import check_simulation
from m2distill_sim.suites import assets_of
from m2distill_training.config import TrainConfig
from m2distill_training.engine.train import deferred_interrupt
from m2distill_training.execution.executor import Executor
from m2distill_training.execution.graph import Activity, run_graph
from m2distill_training.execution.jobs import Resources
from m2distill_training.execution.open import open_executor
from m2distill_training.experiments.collect import collect_tasks
from m2distill_training.experiments.study_jobs import (
    EvaluateStage,
    EvaluationSettings,
    FinishRun,
    StudyRun,
    TrainStage,
)
from m2distill_training.experiments.study_plan import FIRST, Plan, SuitePlan, Variant
from m2distill_training.experiments.study_results import write_comparison, write_results
from m2distill_training.experiments.study_status import LOCK, StatusFile
from m2distill_training.experiments.suite_files import in_suite_order
from m2distill_training.runs.records import begin_folder, locked, write_json, writing
from m2distill_training.runs.run_folder import RunFolder

STOP = "stop"  # file in OUT at which trainings save their state and end


def study(
    out: Path,
    plan: Plan,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    limit_s: float | None = None,
    only: Sequence[str] = (),
) -> bool:
    """Learn, evaluate and compare; what is finished in `out` is not repeated.

    Args:
        out: folder of everything that is written.
        plan: what is studied.
        workers: CPUs for jobs, see open_executor; the results do not depend on their number.
        cluster: a Ray cluster, see open_executor.
        limit_s: seconds after which the study ends by itself, between jobs or at a saved state of a training.
        only: runs to do, such as "er-0", or "libero_goal/er-0" of one suite; empty: all of the plan.

    Returns:
        True if all of that is complete, False if the time limit ended it before.

    Raises:
        UserError: the plan cannot be studied, or the folder holds another study.
        KeyboardInterrupt: after Ctrl-C, when running trainings have saved their state.
    """
    deadline, out = None if limit_s is None else time.monotonic() + limit_s, out.absolute()
    plan.check()
    _check_only(plan, only)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    assets = {(suite.suite, plan.assets): assets_of(suite.suite, plan.assets).identity() for suite in plan.suites}
    with (
        open_executor(workers, cluster, out, functools.partial(check_simulation, assets)) as executor,
        deferred_interrupt() as interrupted,
    ):
        device = _device(plan, executor)
        folders = {suite: out / suite.suite if len(plan.suites) > 1 else out for suite in plan.suites}
        _check_layout(out, plan)
        for suite, folder in folders.items():
            begin_folder(folder, "study", plan.settings(suite, device))
        with locked(out / LOCK, f"{out} is in use by another process; see m2distill study --status {out}"):
            write_json(out / "plan.json", plan.model_dump(mode="json"))
            graphs = [SuiteGraph(folder, plan, suite, device, out / STOP, only) for suite, folder in folders.items()]
            activities = [activity for graph in graphs for activity in graph.activities()]
            failure = None
            try:
                complete = _work(executor, activities, out, deadline, interrupted)
            except UserError as error:  # what does not depend on it has been finished
                complete, failure = False, error
            for folder in folders.values():
                _write(folder, plan)
    if failure is not None:
        raise failure
    if interrupted.is_set() and not complete:
        raise KeyboardInterrupt
    return complete


def _check_only(plan: Plan, only: Sequence[str]) -> None:
    """Raise UserError for a name of no run."""
    names = [variant.run_name(seed) for variant in plan.strategies for seed in plan.seeds]
    for name in only:
        if name not in (*names, *(f"{suite.suite}/{run}" for suite in plan.suites for run in names)):
            raise UserError(f"--only: {unknown_name('run', name, names)}")


def _check_layout(out: Path, plan: Plan) -> None:
    """Raise UserError if `out` has the results of one suite where this plan has several, or the reverse."""
    if len(plan.suites) > 1 and (out / "study.json").is_file():
        raise UserError(f"{out} holds a study of one suite, this plan has {len(plan.suites)}; choose another --out")
    if len(plan.suites) == 1 and any(out.glob("*/study.json")):
        raise UserError(f"{out} holds a study of several suites, this plan has one; choose another --out")


def _work(
    executor: Executor, activities: list[Activity], out: Path, deadline: float | None, interrupted: threading.Event
) -> bool:
    """Run all activities; return False if an interruption or the deadline ended it before."""
    status, stop_file = StatusFile(out / "status.json", executor, activities), out / STOP
    stop_file.unlink(missing_ok=True)

    def stop() -> bool:
        due = interrupted.is_set() or (deadline is not None and time.monotonic() > deadline)
        if due:
            stop_file.touch()
        return due

    try:
        return run_graph(executor, activities, keep_going=True, stop=stop, on_look=status.update)
    finally:
        status.update(end=True)
        stop_file.unlink(missing_ok=True)


def _device(plan: Plan, executor: Executor) -> str:
    """Return where networks are trained. Raises UserError."""
    if plan.device == "cpu":
        return "cpu"
    if executor.capacity().gpus > 0:
        return "cuda"
    if plan.device == "auto":
        return "cpu"
    raise UserError("device is cuda, and no machine here has a GPU; give device: cpu")


def _write(folder: Path, plan: Plan) -> None:
    if any((folder / "runs").glob("*/evaluation.json")):
        write_results(folder)
        write_comparison(folder, plan)


class SuiteGraph:
    """The activities of one suite; `only` are names of runs, see study(); empty: all."""

    def __init__(
        self,
        out: Path,
        plan: Plan,
        suite: SuitePlan,
        device: str,
        stop_file: Path,
        only: Collection[str] = (),
    ):
        self._out, self._plan, self._suite, self._device, self._stop_file = out, plan, suite, device, stop_file
        self._only = only
        self._label = f"{suite.suite}: " if len(plan.suites) > 1 else ""
        self._sizes = plan.stage_sizes(suite)
        self._collects: list[Activity] = []
        self._files, self._instructions = self._data()
        self._settings = EvaluationSettings(
            suite.suite,
            plan.episodes,
            plan.sampling,
            plan.max_steps,
            plan.assets,
            plan.starts,
            plan.environments,
            plan.episodes_earlier,
        )

    def activities(self) -> list[Activity]:
        """Return all activities, each after those that it needs."""
        found: list[Activity] = []
        for seed in self._plan.seeds:
            variants = [variant for variant in self._plan.strategies if self._is_wanted(variant.run_name(seed))]
            first: tuple[StudyRun, list[Activity]] | None = None
            if any(variant.shares_first_stage for variant in variants):
                first = self._first(seed)
                found += first[1]
            for variant in variants:
                found += self._run(variant, seed, first)
        return [*self._collects, *found] if found else []

    def _is_wanted(self, run: str) -> bool:
        return not self._only or run in self._only or f"{self._suite.suite}/{run}" in self._only

    def _data(self) -> tuple[list[Path], list[str] | None]:
        """Return the files in the order of learning, and the instructions that replace those in them."""
        suite, numbers = self._suite, self._suite.numbers()
        if suite.data is not None:
            files = sorted(suite.data.absolute().glob("[!.]*.hdf5"))
            return in_suite_order(files, suite.suite, numbers)
        assets = assets_of(suite.suite, self._plan.assets)
        tasks = collect_tasks(suite.suite, numbers, suite.demos, self._out / "data", assets=assets)
        self._collects += tasks
        return [task.path for task in tasks], None

    def _study_run(self, name: str, kind: str, config: TrainConfig, tasks: int, stages: int) -> StudyRun:
        plan, instructions = self._plan, self._instructions
        gpus = plan.gpus if self._device == "cuda" else 0.0
        return StudyRun(
            label=f"{self._label}{name}, seed {config.seed}",
            kind=kind,
            folder=RunFolder(self._out / "runs" / f"{name.replace(':', '.')}-{config.seed}"),
            config=config,
            files=tuple(self._files[:tasks]),
            instructions=None if instructions is None else tuple(instructions[:tasks]),
            stages=stages,
            resources=Resources(plan.threads, gpus),
            device=self._device,
            cache=None if plan.cache is None else plan.cache.absolute(),
            stop_file=self._stop_file,
        )

    def _first(self, seed: int) -> tuple[StudyRun, list[Activity]]:
        tasks = self._sizes[0]
        run = self._study_run(FIRST, FIRST, self._plan.first_config(self._suite, seed), tasks, 1)
        return run, self._stages(run, [tasks], self._collects[:tasks], run)

    def _run(self, variant: Variant, seed: int, first: tuple[StudyRun, list[Activity]] | None) -> list[Activity]:
        joint = variant.load().joint
        sizes = [sum(self._sizes)] if joint else list(self._sizes)
        config = self._plan.config(self._suite, variant, seed)
        run = self._study_run(variant.name, variant.name, config, sum(sizes), len(sizes))
        after, shared, evaluated = self._collects, None, []
        if first is not None and variant.shares_first_stage:
            shared = first[0]
            after = [*self._collects, *(each for each in first[1] if isinstance(each, TrainStage))]
            evaluated = [each for each in first[1] if isinstance(each, EvaluateStage)]
            run = dataclasses.replace(run, start_from=shared.folder.checkpoint(1))
        activities = self._stages(run, sizes, after, shared or run, evaluated)
        return [*activities, FinishRun(run, self._out, self._settings, activities)]

    def _stages(
        self,
        run: StudyRun,
        sizes: list[int],
        after: Sequence[Activity],
        first: StudyRun,
        evaluated: Sequence[Activity] = (),
    ) -> list[Activity]:
        """Return training and evaluation of every stage; further training may begin before the evaluation."""
        trained: Sequence[Activity] = after
        trainings: list[Activity] = []
        evaluations: list[Activity] = []
        for stage, tasks in enumerate(sizes, 1):
            optim = run.config.optim
            units = optim.budget * (tasks if optim.budget_unit == "steps" else 1)
            trained = [TrainStage(run, stage, 0 if stage == 1 and run.start_from else units, trained)]
            earlier = sum(sizes[: stage - 1]) * (self._plan.episodes_earlier or self._plan.episodes)
            learned = tasks * self._plan.episodes + earlier
            points = self._plan.curve_points * tasks * self._plan.episodes
            new = 0 if stage == 1 and run.start_from else learned + points
            evaluated = [EvaluateStage(run, stage, self._settings, new, [*trained, *evaluated], first.folder.path)]
            trainings += trained
            evaluations += evaluated
        return [*trainings, *evaluations]
