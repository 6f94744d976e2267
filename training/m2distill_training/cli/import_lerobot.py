"""The command `m2distill import lerobot`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_cameras, chosen_cameras

DESCRIPTION = """Convert a LeRobot dataset of a Panda, version 3.0 or 2.1, to LIBERO-format files, one per task.

It needs seven joints, two fingers, action (change of the hand's pose, fingers) and the cameras, at 20 Hz;
docs/lerobot.md has names and units. The file of --cameras names the feature of each camera, as `lerobot_key`. With
--layout the images of LIBERO's tasks are compared with the simulator's."""
EXAMPLES = (
    "m2distill import lerobot data/lerobot --out data/kitchen",
    "m2distill import lerobot data/lerobot --out data/kitchen --cameras cameras.yaml",
    "m2distill import lerobot data/libero_object_lerobot --out data/libero_object --layout any4lerobot",
)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("dataset", type=Path, help="folder with meta/, data/ and videos/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new files")
    parser.add_argument("--layout", help="named layout: m2distill (the default), any4lerobot or libero")
    parser.add_argument(
        "--images",
        choices=("upright", "mirrored", "upside-down", "rotated"),
        help="how the images are stored; default: upright, or mirrored with another --layout than m2distill",
    )
    add_cameras(parser)


def run(options: argparse.Namespace) -> None:
    from m2distill_training.data.lerobot.lerobot_import import import_lerobot
    from m2distill_training.experiments.orientation import OrientationCheck

    check = OrientationCheck()
    files = import_lerobot(
        options.dataset,
        options.out,
        chosen_cameras(options),
        layout=options.layout,
        images=options.images,
        **({"check": check} if options.layout else {}),
    )
    for note in check.notes:
        print(f"orientation of the images not compared: {note}")
    if check.checked:
        print(f"orientation of the images compared with the simulator: {check.checked} of {len(files)} tasks agree")
    for path in files:
        print(path)
    hand = " --state hand" if options.layout == "libero" else ""
    print(f"next: m2distill train{hand} --data {' '.join(map(str, files))} --out runs/{options.out.name}")
