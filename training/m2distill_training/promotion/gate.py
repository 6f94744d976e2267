"""Promotion gate: checks task by task that a checkpoint keeps the earlier tasks and has learned its own.

A task with a simulation is tested there: the checkpoint and the one that it would replace start from the same initial
states, which are reserved for choices and never reported. An earlier task passes if a loss of `Thresholds.margin` in
success is ruled out at 95 % confidence (non-inferiority). All earlier tasks must pass, so a checkpoint that lost one of
them passes with a probability of about 5 % however many there are (intersection-union test; Berger, Technometrics 24,
1982, 295). Other tasks are tested with their held-out demos (data/task_memory.py): by the log-likelihood of the
demonstrated actions and by the drift of the latents.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_policy.models import PolicyOutput
from m2distill_policy.models.batch import to_model_input
from m2distill_policy.robot import not_simulated
from m2distill_sim.suites import Task
from m2distill_training.data.task_memory import load_task_memory
from m2distill_training.data.windows import Windows, evenly_spaced
from m2distill_training.evaluation.evaluate import evaluate_checkpoint
from m2distill_training.evaluation.paired import loss_bound
from m2distill_training.evaluation.run_specs import task_of
from m2distill_training.losses.bc import bc_loss
from m2distill_training.losses.distill import token_distance
from m2distill_training.promotion.thresholds import Thresholds
from m2distill_training.runs.records import RunError
from m2distill_training.runs.run_folder import RunFolder, has_learned

WINDOWS = 64  # of a task's held-out demos, at equal distances


@dataclass(frozen=True)
class TaskCheck:
    """Result of the gate for one task.

    `before` and `after` are success rates, or mean log-likelihoods per step in nats.
    """

    instruction: str
    new: bool
    by: str  # "simulation" or "held-out demos"
    before: float | None
    after: float
    least: float | None  # least permitted `after`; None for an earlier task in simulation
    loss_bound: float | None  # of an earlier task in simulation, at 95 % confidence
    drift: float | None  # of the latents, on held-out demos of earlier tasks
    passed: bool

    def describe(self) -> str:
        """Return the result in words, for messages."""
        kind = "new task" if self.new else "earlier task"
        unit = "success" if self.by == "simulation" else "log-likelihood"
        was = "" if self.before is None else f", was {self.before:.2f}"
        drift = "" if self.drift is None else f", latents moved by {self.drift:.2f} of their mean square"
        return f"{kind} {self.instruction!r} has {unit} {self.after:.2f}{was}, {self.needs()}{drift}"

    def needs(self) -> str:
        """Return the criterion of the success or the likelihood in words."""
        if self.loss_bound is not None:
            return f"a loss of up to {self.loss_bound:.2f} is not ruled out"
        return f"needs {self.least:.2f}"


def check_forgetting(
    run: RunFolder,
    stage: int,
    before: int | None,
    thresholds: Thresholds,
    suite_names: Sequence[str],
    *,
    episodes: int = 20,
    **simulation,
) -> list[TaskCheck]:
    """Return one check for each task that the checkpoint of `stage` knows, new ones last.

    Args:
        run: the run folder.
        stage: stage of the checkpoint to test.
        before: stage of the checkpoint that it would replace; None if there is none.
        thresholds: what the checkpoint must reach.
        suite_names: where the simulations of tasks are looked up; none: held-out demos are the test.
        episodes: per task and checkpoint.
        **simulation: options of evaluate_checkpoint.

    Raises:
        UserError: a checkpoint is damaged, or a task cannot be tested.
    """
    candidate = load_checkpoint(run.checkpoint(stage))
    reference = None if before is None else load_checkpoint(run.checkpoint(before))
    if reference and (lost := set(reference.instructions) - set(candidate.instructions)):
        raise RunError(f"stage {stage} does not know {min(lost)!r}, which stage {before} does")
    data = {place: d for place, d in enumerate(run.data()) if has_learned(candidate, d)}
    old = {place for place, d in data.items() if reference and has_learned(reference, d)}
    # the simulation has LIBERO's robot; another one, or one without suites, is judged by its held-out demos
    simulated = {} if not suite_names or not_simulated(candidate.spec) else data
    found = {place: task_of(suite_names, d) for place, d in simulated.items()}
    tasks = {place: task for place, task in found.items() if task is not None}
    known = {place: task for place, task in tasks.items() if place in old}
    was = {} if before is None else _success(run, before, known, episodes, simulation)
    now = _success(run, stage, tasks, episodes, simulation)
    return [
        _by_simulation(data[place]["instruction"], place not in old, thresholds, was.get(place), now[place])
        if place in tasks
        else _by_demos(run, place, data[place], place not in old, thresholds, reference, candidate)
        for place in sorted(data, key=lambda place: (place not in old, data[place]["instruction"], place))
    ]


def _success(run: RunFolder, stage: int, tasks: dict[int, Task], episodes: int, options: dict) -> dict[int, list[bool]]:
    """Return {place in data.json: success of every start} of tasks that a stage's checkpoint knows.

    Finished episodes are kept in the folder of the stage.
    """
    if not tasks:
        return {}
    out = run.checkpoint(stage).with_name("proof")
    options = {"videos": False} | options
    result = evaluate_checkpoint(run.checkpoint(stage), list(tasks.values()), episodes, out, starts="choice", **options)
    return {
        place: [episode["success"] for episode in row["runs"]]
        for place, row in zip(tasks, result["tasks"], strict=True)
    }


def _by_simulation(
    text: str, new: bool, thresholds: Thresholds, before: Sequence[bool] | None, after: Sequence[bool]
) -> TaskCheck:
    rate = sum(after) / len(after)
    if new or before is None:
        least = thresholds.success
        return TaskCheck(text, True, "simulation", None, rate, least, None, None, rate >= least)
    bound = loss_bound(before, after)
    was = sum(before) / len(before)
    return TaskCheck(text, False, "simulation", was, rate, None, bound, None, bound <= thresholds.margin)


def _by_demos(
    run: RunFolder,
    place: int,
    dataset: dict,
    new: bool,
    thresholds: Thresholds,
    reference: Checkpoint | None,
    candidate: Checkpoint,
) -> TaskCheck:
    text, folder = dataset["instruction"], run.memory(place, "held_out")
    if not folder.is_dir():
        raise RunError(
            f"{text!r} has no simulation and no held-out demos: it cannot be tested whether it is "
            "kept. Name its suite with --suite, or learn with held-out demos (replay.held_out_demos, "
            "--held-out)"
        )
    subset = load_task_memory(folder, dataset, [camera.name for camera in candidate.spec.cameras])
    batch = evenly_spaced(Windows([subset], candidate.spec.history), WINDOWS)
    inputs = to_model_input(batch["images"], batch["joint"], batch["gripper"], batch["text"])
    action = torch.from_numpy(batch["action"])

    @torch.no_grad()
    def forward(checkpoint: Checkpoint) -> tuple[PolicyOutput, float]:
        output = checkpoint.build_policy().eval()(inputs)
        return output, -bc_loss(output.dist, action).item()

    output, after = forward(candidate)
    if reference is None:
        return TaskCheck(text, True, "held-out demos", None, after, -math.inf, None, None, math.isfinite(after))
    former, before = forward(reference)
    if new:  # the previous checkpoint has not learned it, so the new one must be better
        return TaskCheck(text, True, "held-out demos", before, after, before, None, None, after > before)
    drift = max(
        (token_distance(output.latents[name], x) / x.square().mean()).item() for name, x in former.latents.items()
    )
    least = before - thresholds.nats
    return TaskCheck(
        text, False, "held-out demos", before, after, least, None, drift, after >= least and drift <= thresholds.drift
    )
