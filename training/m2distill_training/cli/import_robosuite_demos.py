"""The command `m2distill import robosuite-demos`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_image_size

DESCRIPTION = """Convert robosuite's three human demonstrations of lifting a cube to a LIBERO-format file,
OUT/lift_demo.hdf5.

The recorded states are rendered from both cameras, and OSC_POSE actions are derived from the motion. The task is
evaluated as --suite robosuite.

--generate adds demonstrations at other placements of the cube. The hand follows a recorded path, moved with the cube;
those that lift it are kept."""
EXAMPLES = ("m2distill import robosuite-demos data/lift", "m2distill import robosuite-demos data/lift --generate 40")


def add_arguments(parser: Parser) -> None:
    parser.add_argument("out", type=Path, help="folder of the new file")
    parser.add_argument(
        "--file", type=Path, help="a demo.hdf5 that robosuite recorded of its Lift; default: the one in its wheel"
    )
    parser.add_argument(
        "--generate",
        type=int,
        default=0,
        metavar="N",
        help="demonstrations to be generated from the recorded ones (default: 0)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of placements and disturbances of generated ones (default: 0)"
    )
    add_image_size(parser)


def run(options: argparse.Namespace) -> None:
    from m2distill_training.experiments.robosuite_demos import import_lift

    path = import_lift(options.out, options.file, options.image_size_px, options.generate, options.seed)
    print(path)
    print(f"next: m2distill train --data {path} --out runs/{options.out.name}")
