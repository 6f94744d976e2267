"""The command `m2distill data merge`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_cameras, add_lossless, chosen_cameras

DESCRIPTION = """Write all episodes of several sets of one kind as one new set. The old ones are not changed.

HDF5 files must have one instruction, or --instruction gives it; their cameras and conventions must agree."""
EXAMPLES = ("m2distill data merge data/monday_demo.hdf5 data/tuesday_demo.hdf5 --out data/kitchen_demo.hdf5",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "sets", type=Path, nargs="*", metavar="SET", help="HDF5 files, LeRobot datasets or folders of bags"
    )
    parser.add_argument("--instruction", help="of all episodes of the new HDF5 file")
    parser.add_argument("--out", type=Path, required=True, help="the new file or folder")
    add_lossless(parser)
    add_cameras(parser)


def run(options: argparse.Namespace) -> None:
    from m2distill_training.data.review.edit import merge_sets
    from m2distill_training.data.review.episodes import find_sets

    sets = find_sets(options.sets, chosen_cameras(options))
    count = merge_sets(sets, options.out, options.instruction, options.lossless)
    print(f"{options.out}: {count} episodes of {len(sets)} sets")
    print(f"next: m2distill data info {options.out}")
