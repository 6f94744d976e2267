"""The command `m2distill evaluate`."""

from pathlib import Path
from typing import Any

from tyro.conf import Positional

from m2distill_policy.action import DEFAULT_SAMPLING
from m2distill_policy.errors import UserError, require_at_least


def evaluate_command(
    path: Positional[Path],
    suite: tuple[str, ...] = ("libero_object",),
    tasks: tuple[int, ...] = (),
    episodes: int = 10,
    sampling: str = DEFAULT_SAMPLING,
    seed: int = 0,
    max_steps: int = 600,
    workers: int = 2,
    assets: str | None = None,
    out: Path | None = None,
) -> None:
    """Success rates in simulation, from initial states that no demonstration used.

    Of a run folder: every stage's checkpoint on every task learned so far, with success matrix and forgetting; kept
    in the run folder. Of a checkpoint: the tasks that it knows, or --tasks; kept in --out.

    Written are evaluation.json (success rates with 95 % Wilson intervals, steps to success, every episode, failures
    first; settings, assets and versions), videos/ (every failure, and each task's first episode: both views, the
    instruction, and the mixture's weights with the mode that acted) and episodes.jsonl, from which the same command
    goes on after Ctrl-C or a crash. Checkpoint, settings and seed determine the result, --workers does not. A
    process that dies costs no more than the repetition of its episode.

    Example: m2distill evaluate runs/two_tasks --episodes 10

    Example: m2distill evaluate runs/two_tasks/stages/2/checkpoint --suite libero_object --tasks 0 1 --workers 2

    Args:
        path: a run folder or a checkpoint
        suite: where the tasks are from: a suite of LIBERO, or robosuite
        tasks: task numbers in the suite, from 0, for a checkpoint; default: those it knows
        episodes: per task, each from another start that no demonstration used: LIBERO's initial states 40 to 49,
            then newly drawn placements
        sampling: stochastic (LIBERO's), low_noise or mode
        seed: of the draws from the policy's mixture
        max_steps: after which an episode has failed; LIBERO's number
        workers: processes, each with a simulator of its own; the result does not depend on it
        assets: builtin, installed, hub or a folder; default: the first that is there
        out: of a checkpoint: where to write; default: beside it, CHECKPOINT_evaluation
    """
    require_at_least(1, workers=workers)

    from m2distill_training.cli.progress import show_episodes
    from m2distill_training.evaluation.evaluate import evaluate_checkpoint, evaluate_run

    options: dict[str, Any] = {
        "sampling": sampling,
        "seed": seed,
        "max_steps": max_steps,
        "workers": workers,
        "assets": assets,
    }
    if (path / "data.json").is_file():
        if tasks or out:
            raise UserError(
                f"{path} is a run folder: all its tasks are evaluated and the result is kept in it; "
                "leave --tasks and --out away, or name one of its checkpoints"
            )
        with show_episodes() as callbacks:
            result = evaluate_run(path, suite, episodes, **options, callbacks=callbacks)
        for i, stage in enumerate(result["stages"], 1):
            print(f"after stage {i}")
            _print_tasks(stage["tasks"])
        print("  ".join(f"{name} {value}" for name, value in result["metrics"].items()))
        print(path / "evaluation.json")
        return
    chosen = _tasks_of(path, suite, tasks)
    out = out or path.with_name(f"{path.name}_evaluation")
    with show_episodes() as callbacks:
        result = evaluate_checkpoint(path, chosen, episodes, out, **options, callbacks=callbacks)
    _print_tasks(result["tasks"])
    print(out / "evaluation.json")


def _tasks_of(checkpoint: Path, suite: tuple[str, ...], tasks: tuple[int, ...]) -> list:
    """The suite's tasks with these numbers; none given: those of the suites that the checkpoint knows."""
    from m2distill_policy.checkpoint import load_checkpoint
    from m2distill_sim.suites import find_task
    from m2distill_training.evaluation.evaluate import find_tasks

    if tasks:
        if len(suite) != 1:
            raise UserError(
                f"--tasks are numbers of one suite's tasks, --suite names {len(suite)}; evaluate them "
                "one after the other"
            )
        return [find_task(suite[0], task) for task in tasks]
    found = find_tasks(suite, sorted(load_checkpoint(checkpoint).instructions))
    if not found:
        raise UserError(f"{checkpoint} knows no instruction; import it again with --instructions")
    return found


def _print_tasks(tasks: list[dict]) -> None:
    for t in tasks:
        low, high = t["wilson_95"]
        steps = f"  in {t['steps_to_success']['median']:.0f} steps (median)" if t["steps_to_success"] else ""
        print(f"  {t['successes']}/{t['episodes']}  [{low:.0%} to {high:.0%}]  {t['instruction']}{steps}")
