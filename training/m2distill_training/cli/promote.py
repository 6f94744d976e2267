"""The command `m2distill promote`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m2distill_policy.suites import BUILTIN_SUITES
from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.dataclass_options import add_dataclass_options, read_dataclass_options
from m2distill_training.cli.options import (
    add_assets,
    add_environments,
    add_episodes,
    add_max_steps,
    add_sampling,
    add_spreading,
    simulation,
)
from m2distill_training.promotion.thresholds import Thresholds

if TYPE_CHECKING:
    from m2distill_training.promotion.gate import TaskCheck

DESCRIPTION = """Check that a checkpoint has kept the earlier tasks and learned its own, then deploy it: RUN/current
points to it.

Tasks of a suite are evaluated in simulation, from initial states that are reserved for choices. An earlier task passes
if a loss of --margin in its success rate is ruled out at 95 % confidence; one failure more than before in 20 episodes
is the most that passes. Other tasks are judged by their held-out
demonstrations. If a task does not pass, nothing is deployed, the task and its figures are named, and the exit status
is 1. m2distill rollback returns to the previous checkpoint."""
EXAMPLES = ("m2distill promote --run runs/kitchen --episodes 40",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="run folder")
    add_dataclass_options(parser, Thresholds())
    parser.add_argument("--stage", type=int, help="number of the stage in the run, from 1; default: the last one")
    parser.add_argument(
        "--suite",
        nargs="*",
        default=list(BUILTIN_SUITES),
        help="suites with the tasks' simulations; none for a real arm whose instructions equal LIBERO's",
    )
    add_episodes(parser, 20, per="task and checkpoint")
    add_max_steps(parser)
    add_environments(parser)
    add_spreading(parser)
    add_assets(parser)
    add_sampling(parser)
    parser.add_argument("--arm", help="preset or arm file of the robot; a checkpoint of another robot is rejected")
    parser.add_argument(
        "--force", action="store_true", help="deploy although the check failed; promotions.jsonl records it"
    )


def run(options: argparse.Namespace) -> None:
    from m2distill_policy.errors import require_at_least

    require_at_least(1, episodes=options.episodes, max_steps=options.max_steps)
    thresholds = read_dataclass_options(Thresholds(), options)

    from m2distill_training.cli.progress import show_episodes
    from m2distill_training.promotion.promotion import promote

    with show_episodes() as callbacks:
        promotion = promote(
            options.run,
            options.stage,
            thresholds=thresholds,
            suites=options.suite,
            force=options.force,
            arm=options.arm,
            episodes=options.episodes,
            callbacks=callbacks,
            **simulation(options),
        )
    _show(promotion.checks, thresholds.margin)
    how = "promoted although the check failed" if promotion.forced else "promoted"
    print(f"{how}: {options.run / 'current'} -> stages/{promotion.stage}/checkpoint ({promotion.checkpoint_id[:12]})")
    print(f"next: m2distill run --checkpoint {options.run / 'current'}; a running policy that follows it has swapped")


def _show(checks: Sequence["TaskCheck"], margin: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "", "by", "before", "after", "needs")
    for f in checks:
        before = "-" if f.before is None else f"{f.before:.2f}"
        table.add_row(
            f.instruction,
            "new" if f.new else "earlier",
            f.by,
            before,
            f"{f.after:.2f}",
            f"{f.least:.2f}" if f.least is not None else f"loss bound {f.loss_bound:.2f} <= {margin:.2f}",
            style=None if f.passed else "red",
        )
    Console().print(table)
