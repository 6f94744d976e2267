"""The command `m2distill bench node`."""

import argparse

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_json

DESCRIPTION = """Measure the policy node with the libero preset (untrained) and two cameras of 128 px at 20 Hz, in
separate processes: time from an image's stamp to its command, beside the bare policy; missed periods, start-up, memory,
and the gap while a checkpoint is swapped.

With LIBERO_SOURCE=CLONE in the environment, inference is timed against LIBERO's own get_action. Needs ROS 2 and no
data."""
EXAMPLES = ("m2distill bench node --json > node.json",)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("--quick", action="store_true", help="seconds only: a smoke test without meaningful times")
    parser.add_argument("--seconds", type=float, default=60, help="time for which commands are timed")
    parser.add_argument(
        "--repeats", type=int, default=100, help="steps of the bare policy and of LIBERO's, after some warm-up"
    )


def run(options: argparse.Namespace) -> None:
    from m2distill_training.bench.node import bench_node

    bench_node(options.json, options.quick, options.seconds, options.repeats)
