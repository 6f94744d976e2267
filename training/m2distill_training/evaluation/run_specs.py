"""Episodes of a run: which checkpoint serves which task after which stage."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.language.instruction_text import normalise
from m2distill_sim.suites import Task, find_task, suites
from m2distill_training.evaluation.rollout_specs import RolloutSpec, make_specs
from m2distill_training.runs.records import RunError
from m2distill_training.runs.run_folder import RunFolder, has_learned


def find_tasks(suite_names: Sequence[str], instructions: Iterable[str], names: Sequence[str] = ()) -> list[Task]:
    """Return the tasks of instructions, in their order.

    Args:
        suite_names: suites in which a task is looked up by its instruction.
        instructions: what the tasks are called.
        names: tasks as SUITE/NAME; they precede, and one instruction may have several.

    Raises:
        UserError: an instruction is that of no task, or of several and no name decides.
    """
    found: list[Task] = []
    for text in instructions:
        named = known_tasks([text], _named_tasks(names))
        task = None if named else simulated_task(suite_names, text)
        if not named and task is None:
            raise UserError(
                f"no task of {', '.join(suite_names)} is {text!r}; name the suites that the demonstrations "
                "are from with --suite"
            )
        found += named or ([task] if task else [])
    return found


def task_of(suite_names: Sequence[str], dataset: dict) -> Task | None:
    """Return the simulated task of a dataset, an entry of data.json: the one that it names, or that of its instruction.

    Raises UserError if the instruction is that of several tasks.
    """
    named = known_tasks([dataset["instruction"]], _named_tasks([dataset.get("task", "")]))
    return named[0] if named else simulated_task(suite_names, dataset["instruction"])


def simulated_task(suite_names: Sequence[str], instruction: str) -> Task | None:
    """Return the task of an instruction in these suites, None without one. Raises UserError if there are several."""
    candidates = [task for suite in suite_names for task in (find_task(suite, 0), *suites()[suite][1:])]
    found = known_tasks([instruction], candidates)
    if len(found) > 1:
        raise UserError(
            f"{instruction!r} is the instruction of {len(found)} tasks: "
            f"{', '.join(f'{task.suite} {task.index} ({task.name})' for task in found)}; name one suite with --suite, "
            "numbers with --tasks, or learn from files that name their task"
        )
    return found[0] if found else None


def _named_tasks(names: Iterable[str]) -> list[Task]:
    """Return the tasks that are named SUITE/NAME; unknown names are ignored."""
    wanted = {name.partition("/")[::2] for name in names}
    return [
        task
        for suite in {suite for suite, _ in wanted} & set(suites())
        for task in suites()[suite]
        if (suite, task.name) in wanted
    ]


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
    data = RunFolder(run).data()
    tasks = [task_of(suite_names, d) or find_tasks(suite_names, [d["instruction"]])[0] for d in data]
    folders = [RunFolder(run).checkpoint(stage) for stage in range(1, len(tasks) + 1)]
    checkpoints = {folder: load_checkpoint(folder) for folder in folders if folder.is_dir()}
    if not checkpoints:
        raise RunError(f"{run} holds no finished stage yet; repeat its m2distill train command")
    known = [
        {task for task, d in zip(tasks, data, strict=True) if has_learned(checkpoint, d)}
        for checkpoint in checkpoints.values()
    ]
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
            for task in tasks
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
