"""The command `m2distill evaluate`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from m2distill_policy.errors import UserError, require_at_least
from m2distill_policy.suites import DEFAULT_SUITE
from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import (
    add_assets,
    add_environments,
    add_episodes,
    add_max_steps,
    add_sampling,
    add_spreading,
    add_track,
    simulation,
)

DESCRIPTION = """Measure success rates in simulation, from initial states that no demonstration used.

Of a run folder: the checkpoint of every stage on every task learned so far, with success matrix and forgetting; the
result is stored in the run folder. Of a checkpoint: the tasks that it knows, or --tasks; stored in --out.

The result is evaluation.json (success rates with 95 % Wilson intervals, steps to success, every episode, settings and
versions), videos/ (every failure and the first episode of each task: both views, the instruction, and the mixture with
the active mode) and episodes.jsonl, from which the same command continues after Ctrl-C or a crash. Checkpoint, settings
and seed determine the result, --workers does not."""
EXAMPLES = (
    "m2distill evaluate runs/two_tasks --episodes 10",
    "m2distill evaluate runs/two_tasks/stages/2/checkpoint --suite libero_object --tasks 0 1",
)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("path", type=Path, help="a run folder or a checkpoint")
    parser.add_argument(
        "--suite",
        nargs="+",
        default=[DEFAULT_SUITE],
        help="suites of the tasks: LIBERO's names, or robosuite",
    )
    parser.add_argument(
        "--tasks",
        type=int,
        nargs="+",
        default=[],
        help="task numbers in the suite, from 0, for a checkpoint; default: those it knows",
    )
    add_episodes(parser)
    add_sampling(parser)
    parser.add_argument(
        "--starts",
        choices=("report", "choice"),
        default="report",
        help="report: the starts that results are reported on; choice: others, to choose settings or a checkpoint",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the samples from the policy's mixture")
    add_max_steps(parser)
    add_environments(parser)
    add_spreading(parser)
    add_assets(parser)
    add_track(parser)
    parser.add_argument(
        "--out", type=Path, help="of a checkpoint: folder of the result; default: CHECKPOINT_evaluation beside it"
    )


def run(options: argparse.Namespace) -> None:
    require_at_least(1, **({} if options.workers is None else {"workers": options.workers}))
    if (options.path / "data.json").is_file():
        _evaluate_run(options)
    else:
        _evaluate_checkpoint(options)


def _evaluate_run(options: argparse.Namespace) -> None:
    path = options.path
    if options.tasks or options.out:
        raise UserError(
            f"{path} is a run folder: all its tasks are evaluated and the result is stored in it; "
            "omit --tasks and --out, or name one of its checkpoints"
        )
    from m2distill_training.cli.progress import show_episodes
    from m2distill_training.evaluation.evaluate import evaluate_run

    with show_episodes() as callbacks:
        result = evaluate_run(
            path,
            options.suite,
            options.episodes,
            seed=options.seed,
            starts=options.starts,
            **simulation(options),
            callbacks=callbacks,
        )
    if options.track:
        from m2distill_training.runs.run_folder import RunFolder
        from m2distill_training.runs.tensorboard import success_points
        from m2distill_training.runs.tracking import RunTracking

        tracking = RunTracking(path, options.track)
        tracking.send(success_points(result, RunFolder(path).metrics()))
        tracking.close()
    for i, stage in enumerate(result["stages"], 1):
        print(f"after stage {i}")
        _print_tasks(stage["tasks"])
    metrics = result["metrics"]
    print("  ".join(f"{name.upper()} {_percent(metrics[name])}" for name in ("fwt", "nbt", "auc")))
    print(path / "evaluation.json")
    print(f"next: m2distill report {path}")


def _evaluate_checkpoint(options: argparse.Namespace) -> None:
    if options.track:
        raise UserError(f"--track sends the success of a run, {options.path} is a checkpoint; omit it")
    chosen = _tasks_of(options.path, options.suite, options.tasks)
    out = options.out or options.path.with_name(f"{options.path.name}_evaluation")

    from m2distill_training.cli.progress import show_episodes
    from m2distill_training.evaluation.evaluate import evaluate_checkpoint

    with show_episodes() as callbacks:
        result = evaluate_checkpoint(
            options.path,
            chosen,
            options.episodes,
            out,
            seed=options.seed,
            starts=options.starts,
            **simulation(options),
            callbacks=callbacks,
        )
    _print_tasks(result["tasks"])
    print(out / "evaluation.json")
    print(f"next: m2distill report {out}")


def _tasks_of(checkpoint: Path, suite: Sequence[str], tasks: Sequence[int]) -> list:
    """The suite's tasks with these numbers; if there are none, the tasks of the suites that the checkpoint knows."""
    from m2distill_policy.checkpoint import load_checkpoint
    from m2distill_sim.suites import find_task
    from m2distill_training.evaluation.run_specs import find_tasks

    if tasks:
        if len(suite) != 1:
            raise UserError(
                f"--tasks are numbers of one suite's tasks, --suite names {len(suite)}; evaluate them "
                "one after the other"
            )
        return [find_task(suite[0], task) for task in tasks]
    known = load_checkpoint(checkpoint)
    found = find_tasks(suite, sorted(known.instructions), known.task_names)
    if not found:
        raise UserError(f"{checkpoint} knows no instruction; import it again with --instructions")
    return found


def _print_tasks(tasks: list[dict]) -> None:
    for t in tasks:
        low, high = t["wilson_95"]
        steps = f"  in {t['steps_to_success']['median']:.0f} steps (median)" if t["steps_to_success"] else ""
        print(f"  {t['successes']}/{t['episodes']}  [{low:.0%} to {high:.0%}]  {t['instruction']}{steps}")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
