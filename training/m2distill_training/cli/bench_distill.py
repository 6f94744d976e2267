"""The command `m2distill bench distill`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_json, add_workers

DESCRIPTION = """Measure what strategies keep of earlier tasks, without rollouts. The starter policy, without the
decoders of its later tasks, learns a task of LIBERO-GOAL for 250 gradient steps with one replayed demonstration. On new
demonstrations, its divergence from the starter is measured for the replayed task and for a task without replay, and its
loss for the new task. M2Distill is also trained without each of its terms."""
EXAMPLES = ("m2distill bench distill --seeds 0 --json > distill.json",)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument(
        "--quick", action="store_true", help="three demonstrations and gradient steps: a smoke test without meaning"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data/bench_distill"),
        help="folder of the demonstrations; missing ones are collected there",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="every strategy is trained with each")
    parser.add_argument("--strategies", nargs="+", help="strategies to train; default: all of the benchmark")
    parser.add_argument("--steps", type=int, default=250, help="gradient steps")
    parser.add_argument("--later-lr", type=float, default=1.0, help="factor of the preset's learning rate")
    add_workers(parser)


def run(options: argparse.Namespace) -> None:
    from m2distill_training.bench.distill import VARIANTS, bench_distill

    bench_distill(
        options.json,
        options.quick,
        options.data,
        options.seeds,
        options.strategies or tuple(VARIANTS),
        options.steps,
        options.workers,
        options.later_lr,
    )
