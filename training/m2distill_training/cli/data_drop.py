"""The command `m2distill data drop`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.data_editing import named_set, write_edited
from m2distill_training.cli.options import add_cameras, add_lossless, chosen_cameras

DESCRIPTION = """Write a new set without some episodes of an old one, which is not changed.

--choices carries out everything that was chosen on the page of m2distill data show: dropped and trimmed episodes."""
EXAMPLES = (
    "m2distill data drop --choices kitchen_demo.hdf5_choices.json --out data/kitchen_clean_demo.hdf5",
    "m2distill data drop data/kitchen_demo.hdf5 --episodes demo_3 demo_7 --out data/kitchen_clean_demo.hdf5",
)


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "set", type=Path, nargs="?", metavar="SET", help="an HDF5 file, a LeRobot dataset or a folder of bags"
    )
    parser.add_argument("--episodes", nargs="+", default=[], help="names, as m2distill data show prints them")
    parser.add_argument("--choices", type=Path, metavar="FILE", help="the choices that the page saved")
    parser.add_argument("--out", type=Path, required=True, help="the new file or folder")
    add_lossless(parser)
    add_cameras(parser)


def run(options: argparse.Namespace) -> None:
    from m2distill_policy.errors import UserError
    from m2distill_training.data.review.choices import Choices, read_choices

    if (options.choices is None) == (not options.episodes):
        raise UserError("give either --choices or --episodes")
    if options.choices is not None:
        demos, choices = read_choices(options.choices, options.set, chosen_cameras(options))
    else:
        demos, choices = named_set(options), Choices(frozenset(options.episodes))
    write_edited(demos, choices, options)
