"""The command `m2distill import lerobot`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser

DESCRIPTION = """Convert a LeRobot dataset of a Panda, version 3.0, to LIBERO-format files, one per task.

It needs observation.state (seven joints, two fingers), action (change of the hand's pose, fingers) and two cameras, at
20 Hz; docs/lerobot.md has names and units."""
EXAMPLES = ("m2distill import lerobot data/lerobot --out data/kitchen",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("dataset", type=Path, help="folder with meta/, data/ and videos/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new files")
    parser.add_argument(
        "--agentview", help="feature with the images of the scene camera; default: observation.images.agentview"
    )
    parser.add_argument(
        "--wrist", help="feature with the images of the camera at the hand; default: observation.images.wrist"
    )


def run(options: argparse.Namespace) -> None:
    from m2distill_training.data.lerobot.layout import CAMERAS
    from m2distill_training.data.lerobot.lerobot_import import import_lerobot

    given = {"agentview": options.agentview, "wrist": options.wrist}
    cameras = {name: given[name] or feature for name, feature in CAMERAS.items()}
    files = import_lerobot(options.dataset, options.out, cameras)
    for path in files:
        print(path)
    print(f"next: m2distill train --data {' '.join(map(str, files))} --out runs/{options.out.name}")
