"""The command `m2distill import lerobot`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_cameras, chosen_cameras

DESCRIPTION = """Convert a LeRobot dataset of a Panda, version 3.0, to LIBERO-format files, one per task.

It needs observation.state (seven joints, two fingers), action (change of the hand's pose, fingers) and the cameras, at
20 Hz; docs/lerobot.md has names and units. The file of --cameras names the feature of each camera, as `lerobot_key`."""
EXAMPLES = (
    "m2distill import lerobot data/lerobot --out data/kitchen",
    "m2distill import lerobot data/lerobot --out data/kitchen --cameras cameras.yaml",
)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("dataset", type=Path, help="folder with meta/, data/ and videos/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new files")
    add_cameras(parser)


def run(options: argparse.Namespace) -> None:
    from m2distill_training.data.lerobot.lerobot_import import import_lerobot

    files = import_lerobot(options.dataset, options.out, chosen_cameras(options))
    for path in files:
        print(path)
    print(f"next: m2distill train --data {' '.join(map(str, files))} --out runs/{options.out.name}")
