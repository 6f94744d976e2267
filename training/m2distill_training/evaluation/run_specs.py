"""Episodes of a run: which checkpoint serves which task after which stage."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.language.instruction_text import normalise
from m2distill_sim.suites import Task, find_task, suites
from m2distill_training.evaluation.rollout_specs import RolloutSpec, make_specs
from m2distill_training.runs.records import RunError
from m2distill_training.runs.run_folder import RunFolder


def find_tasks(suite_names: Sequence[str], instructions: Iterable[str]) -> list[Task]:
    """Return the task of every instruction from the first suite that has it. Raises UserError if none has."""
    wanted = list(instructions)
    found = simulated_tasks(suite_names, wanted)
    for text in wanted:
        if text not in found:
            raise UserError(
                f"no task of {', '.join(suite_names)} is {text!r}; name the suites that the demonstrations "
                "are from with --suite"
            )
    return [found[text] for text in wanted]


def simulated_tasks(suite_names: Sequence[str], instructions: Iterable[str]) -> dict[str, Task]:
    """Return {instruction: task} of the instructions that a suite has, from the first one that has it."""
    candidates = [task for suite in suite_names for task in (find_task(suite, 0), *suites()[suite][1:])]
    return {text: same[0] for text in instructions if (same := known_tasks([text], candidates))}


def known_tasks(instructions: Iterable[str], tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks that one of the instructions names."""
    known = {normalise(text) for text in instructions}
    return [task for task in tasks if normalise(task.instruction) in known]


def run_specs(
    run: Path,
    suite_names: Sequence[str],
    episodes: int,
    sampling: str,
    seed: int,
    max_steps: int,
    assets: str | None,
    starts: str,
    environments: int = 1,
    episodes_earlier: int | None = None,
    last_stage: int | None = None,
) -> tuple[list[list[RolloutSpec]], list[list[list[RolloutSpec]]]]:
    """Return the episodes after every finished stage, and those of every point of its learning curve.

    Those after `last_stage`, by default the last finished one, are filmed. Arguments are those of `evaluate_run`. A
    checkpoint runs `episodes_earlier` of the episodes of a task that an earlier checkpoint served first.
    """
    if not (run / "data.json").is_file():
        raise RunError(f"{run} is no run folder; give the --out of m2distill train")
    instructions = [d["instruction"] for d in RunFolder(run).data()]
    tasks = dict(zip(instructions, find_tasks(suite_names, instructions), strict=True))
    folders = [RunFolder(run).checkpoint(stage) for stage in range(1, len(tasks) + 1)]
    checkpoints = {folder: load_checkpoint(folder) for folder in folders if folder.is_dir()}
    if not checkpoints:
        raise RunError(f"{run} holds no finished stage yet; repeat its m2distill train command")
    known = [{tasks[text] for text in checkpoint.instructions} for checkpoint in checkpoints.values()]
    serving = serving_stages(known)

    def specs_of(folder: Path, chosen: list[Task], number: int, filmed: bool = False) -> list[RolloutSpec]:
        videos = run / "videos" if filmed else None
        return make_specs(folder, chosen, number, sampling, seed, max_steps, assets, videos, starts, environments)

    filmed_stages = [stage == (last_stage or len(serving)) for stage in range(1, len(serving) + 1)]
    learner: dict[Task, int] = {}  # task -> index of the checkpoint that first serves it
    for served in serving:
        learner = served | learner
    stages = [
        [
            spec
            for task in tasks.values()
            if task in served
            for spec in specs_of(
                folders[served[task]],
                [task],
                episodes if served[task] == learner[task] else episodes_earlier or episodes,
                filmed,
            )
        ]
        for served, filmed in zip(serving, filmed_stages, strict=True)
    ]
    curves = [
        [specs_of(folder, new, episodes) for folder in RunFolder(run).curve(stage)]
        for stage, new in enumerate(_new_tasks(serving), 1)
    ]
    return stages, curves


def serving_stages(known: list[set[Task]]) -> list[dict[Task, int]]:
    """Return for every stage {task: index of the stage whose checkpoint serves it}, from the tasks each one knows."""
    serving: list[dict[Task, int]] = []
    for i, tasks in enumerate(known):
        serving.append((serving[-1] if serving else {}) | dict.fromkeys(tasks, i))
    return serving


def _new_tasks(serving: list[dict[Task, int]]) -> list[list[Task]]:
    """Return the tasks of every stage that the previous stage did not have."""
    return [[task for task in served if not i or task not in serving[i - 1]] for i, served in enumerate(serving)]
