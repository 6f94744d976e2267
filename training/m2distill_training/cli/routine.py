"""The commands of the routine of continual retraining: `m2distill learn`, `promote`, `rollback`."""

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from m2distill_policy.action import DEFAULT_SAMPLING
from m2distill_policy.errors import require_at_least
from m2distill_training.cli.progress import show_episodes, show_training
from m2distill_training.engine.continue_run import learn
from m2distill_training.promotion.gate import TaskCheck, Thresholds
from m2distill_training.promotion.promotion import promote, rollback
from m2distill_training.utils.device import usable_device


def learn_command(
    run: Path,
    data: Path,
    strategy: str = "m2distill",
    held_out: int = 1,
    instruction: str | None = None,
    device: str = "auto",
    cache: Path | None = None,
) -> None:
    """Teach a run one more task from new demonstrations; the earlier tasks' files are not needed.

    The teacher is the run's last checkpoint, the replayed demonstrations come from the run's own memory. Nothing that
    runs changes: the new checkpoint waits in RUN/stages/ until it is promoted. After Ctrl-C or a crash the same command
    goes on.

    Example: m2distill learn --run runs/kitchen --data data/new_task.hdf5

    Args:
        run: the run folder, made by m2distill train.
        data: one HDF5 file with demonstrations of the new task.
        strategy: m2distill; others (finetune, er ...) as controls.
        held_out: demonstrations kept back, by which this and later checkpoints are judged without a simulation.
        instruction: in place of the one in the file.
        device: cpu, cuda, cuda:1 ...; auto takes a GPU when there is one.
        cache: where decoded frames are kept; default: beside the data file.
    """
    require_at_least(0, held_out=held_out)
    with show_training(strategy) as on_step:
        stage = learn(
            run,
            data,
            strategy=strategy,
            held_out=held_out,
            instruction=instruction,
            device=usable_device(device),
            cache=cache,
            on_step=on_step,
        )
    print(f"learned: {run / 'stages' / str(stage) / 'checkpoint'}\nnext: m2distill promote --run {run}")


def promote_command(
    run: Path,
    thresholds: Annotated[Thresholds, tyro.conf.arg(name="")] = Thresholds(),
    stage: int | None = None,
    suite: tuple[str, ...] = ("libero_object", "libero_goal", "libero_spatial", "libero_10"),
    episodes: int = 10,
    max_steps: int = 600,
    workers: int = 2,
    assets: str | None = None,
    sampling: str = DEFAULT_SAMPLING,
    force: bool = False,
) -> None:
    """Prove that a checkpoint has kept the earlier tasks and learned its own, then let the robot follow it.

    Tasks that a suite of LIBERO has are tried in simulation, from held-out initial states; others are judged by their
    held-out demonstrations. RUN/current then points to the checkpoint; a refusal names the task that fell, and by how
    much. `m2distill rollback` goes back.

    Example: m2distill promote --run runs/kitchen --episodes 10

    Args:
        run: the run folder.
        stage: number of the stage in the run, from 1; default: the last one learned.
        suite: where the tasks' simulations are; none for a real arm whose instructions happen to be LIBERO's.
        episodes: per task and checkpoint.
        max_steps: after which an episode has failed.
        workers: processes with a simulator each.
        assets: builtin, installed, hub or a folder; default: the first that is there.
        sampling: stochastic, low_noise or mode.
        force: promote in spite of a failed proof; that is recorded.
    """
    require_at_least(1, episodes=episodes, max_steps=max_steps, workers=workers)
    with show_episodes() as callbacks:
        promotion = promote(
            run,
            stage,
            thresholds=thresholds,
            suites=suite,
            force=force,
            episodes=episodes,
            max_steps=max_steps,
            workers=workers,
            assets=assets,
            sampling=sampling,
            callbacks=callbacks,
        )
    _show(promotion.checks)
    how = "promoted in spite of its proof" if promotion.forced else "promoted"
    print(f"{how}: {run / 'current'} -> stages/{promotion.stage}/checkpoint ({promotion.checkpoint_id[:12]})")


def rollback_command(run: Path) -> None:
    """Let the robot follow again what was promoted before the present checkpoint.

    Example: m2distill rollback --run runs/kitchen

    Args:
        run: the run folder.
    """
    print(f"rolled back: {run / 'current'} -> stages/{rollback(run)}/checkpoint")


def _show(findings: list[TaskCheck]) -> None:
    table = Table("task", "", "by", "before", "after", "needs")
    for f in findings:
        before = "-" if f.before is None else f"{f.before:.2f}"
        table.add_row(
            f.instruction,
            "new" if f.new else "earlier",
            f.by,
            before,
            f"{f.after:.2f}",
            f"{f.least:.2f}",
            style=None if f.passed else "red",
        )
    Console().print(table)
