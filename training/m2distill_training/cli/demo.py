"""The command `m2distill demo`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_demos, add_episodes, add_max_steps

DESCRIPTION = """Collect demonstrations, learn two tasks one after the other, execute both over ROS 2, and write a
report. The same command continues after Ctrl-C.

The exit status is 1 if the policy that learned both tasks succeeds in less than four of five episodes of the old or of
the new task. The figures of the control, plain fine-tuning, do not count."""
EXAMPLES = ("m2distill demo --out runs/milk --tasks 7 1",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of everything that it writes")
    parser.add_argument(
        "--tasks", type=int, nargs=2, default=[0, 1], help="two task numbers of LIBERO-OBJECT, in the order of learning"
    )
    add_demos(parser, 40)
    add_episodes(parser, 5, per="task and policy, over ROS 2")
    add_max_steps(parser, 300, "a demonstration takes about 100, and the control's failures cost time")
    parser.add_argument(
        "--preset",
        default="small",
        help="of training: small learns within minutes, debug learns nothing within seconds",
    )
    parser.add_argument("--seed", type=int, default=0, help="of demonstrations, training and sampling")


def run(options: argparse.Namespace) -> int:
    from m2distill_training.experiments.demo import DemoPlan, demo

    return demo(
        DemoPlan(
            out=options.out,
            tasks=tuple(options.tasks),
            demos=options.demos,
            episodes=options.episodes,
            max_steps=options.max_steps,
            preset=options.preset,
            seed=options.seed,
        )
    )
