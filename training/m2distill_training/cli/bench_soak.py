"""The command `m2distill bench soak`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_json

DESCRIPTION = """Run simulator, an untrained policy and the recorder together, one episode a minute: memory of each
process at the beginning and at the end, periods without an action, and messages that were published but not recorded.

Recorded episodes are counted and removed. Needs ROS 2."""
EXAMPLES = ("m2distill bench soak --minutes 60 --json > soak.json",)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("--quick", action="store_true", help="ten seconds only: a smoke test")
    parser.add_argument("--minutes", type=float, default=60, help="duration")
    parser.add_argument(
        "--folder", type=Path, help="on the disk that is recorded to; default: the system's for temporary files"
    )


def run(options: argparse.Namespace) -> None:
    from m2distill_training.bench.soak import bench_soak

    bench_soak(options.json, options.quick, options.minutes, options.folder)
