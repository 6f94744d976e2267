"""The command `m2distill bench record`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_json

DESCRIPTION = """Record one episode of two raw cameras of 640x480 at 30 Hz and joints at 100 Hz: messages that were
published but are not in the bag, and the recorder's share of a core.

Uses 55 MB of disk per second, which is freed at the end. Needs ROS 2."""
EXAMPLES = ("m2distill bench record --seconds 300 --json > record.json",)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument("--quick", action="store_true", help="five seconds only")
    parser.add_argument("--seconds", type=int, default=60, help="length of the recording")
    parser.add_argument(
        "--folder", type=Path, help="on the disk that is recorded to; default: the system's for temporary files"
    )


def run(options: argparse.Namespace) -> None:
    from m2distill_training.bench.record import bench_record

    bench_record(options.json, options.quick, options.seconds, options.folder)
