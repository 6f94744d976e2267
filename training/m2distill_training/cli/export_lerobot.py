"""The command `m2distill export lerobot`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_cameras, chosen_cameras

DESCRIPTION = """Convert LIBERO-format files to one LeRobot dataset, version 3.0: images as video, one task for each
instruction."""
EXAMPLES = ("m2distill export lerobot data/demos/*.hdf5 --out data/lerobot",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "data", type=Path, nargs="*", metavar="FILE", help="HDF5 files of m2distill collect and import, or LIBERO's own"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the new dataset")
    add_cameras(parser)
    parser.add_argument("--lossless", action="store_true", help="keep every pixel, in files about five times as large")


def run(options: argparse.Namespace) -> None:
    from m2distill_training.data.lerobot.lerobot_export import export_lerobot

    info = export_lerobot(tuple(options.data), options.out, options.lossless, chosen_cameras(options))
    tasks = info["total_tasks"]
    print(
        f"{options.out}: {info['total_episodes']} episodes, {info['total_frames']} steps, "
        f"{tasks} task{'s' * (tasks != 1)}"
    )
    print(f"next: m2distill data show {options.out}")
