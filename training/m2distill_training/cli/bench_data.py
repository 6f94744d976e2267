"""The command `m2distill bench data`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_json

DESCRIPTION = """Measure windows per second of the frame store against robomimic's SequenceDataset on the same file, and
the memory of a trainer after 1, 10 and 100 tasks."""
EXAMPLES = ("m2distill bench data --data data/demos/task.hdf5 --json > data.json",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        help="demonstration file; default: noise of 10 demonstrations of 120 steps, 128 px, in a temporary folder",
    )
    add_json(parser)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny images and few tasks, in seconds: a smoke test without meaningful times",
    )
    parser.add_argument(
        "--repeats", type=int, default=20, help="batches of 32 windows each, after one warm-up; the median counts"
    )


def run(options: argparse.Namespace) -> None:
    from m2distill_training.bench.data import bench_data

    bench_data(options.data, options.json, options.quick, options.repeats)
