"""The command `m2distill bench experts`."""

import argparse
from pathlib import Path

from m2distill_policy.suites import EXPERT_SUITES
from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_json, add_workers

DESCRIPTION = """Measure the success of the scripted experts from LIBERO's initial states, with 95 % Wilson intervals:
of every task, and in the mean over the tasks."""
EXAMPLES = ("m2distill bench experts --suite libero_goal --states 10 --log experts.jsonl --json > experts.json",)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument(
        "--suite",
        nargs="+",
        default=list(EXPERT_SUITES),
        help="suites with a scripted expert",
    )
    parser.add_argument("--tasks", type=int, nargs="+", default=[], help="task numbers; default: all")
    parser.add_argument(
        "--states", type=int, default=50, help="number of initial states of each task, the first of LIBERO's 50"
    )
    parser.add_argument(
        "--assets", nargs="+", default=["builtin"], help="builtin, installed, hub or folders, one after the other"
    )
    parser.add_argument("--disturbed", action="store_true", help="disturb the actions as in collection")
    parser.add_argument("--seed", type=int, default=0, help="of the experts' variation and of disturbances")
    add_workers(parser, 1)
    parser.add_argument(
        "--log",
        type=Path,
        help="file of finished episodes, one JSON object a line, from which the same command continues; episodes of "
        "other experts or settings in it are ignored",
    )


def run(options: argparse.Namespace) -> None:
    from m2distill_training.bench.experts import bench_experts

    bench_experts(
        options.json,
        tuple(options.suite),
        tuple(options.tasks),
        options.states,
        tuple(options.assets),
        options.disturbed,
        options.seed,
        options.workers,
        options.log,
    )
