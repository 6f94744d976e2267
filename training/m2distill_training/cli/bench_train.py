"""The command `m2distill bench train`."""

import argparse

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_json

DESCRIPTION = """Time a training step of the libero preset: against the plain path (float32, NCHW, LIBERO's
augmentation), and M2Distill's against experience replay's. Compare the losses of 200 steps of the small preset in
bfloat16 with those in float32. Measure the core-seconds of a step of the small preset, and its speed beside a busy
core: run it on an idle machine. With LIBERO_SOURCE=CLONE in the environment, acting is timed against LIBERO's own
get_action. Needs no data."""
EXAMPLES = ("m2distill bench train --json > train.json",)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny images and batches, in seconds: a smoke test without meaningful times",
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="steps of each kind, after one warm-up; the median counts"
    )


def run(options: argparse.Namespace) -> None:
    from m2distill_training.bench.train import bench_train

    bench_train(options.json, options.quick, options.repeats)
