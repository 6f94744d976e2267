"""The command `m2distill import bag`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_cameras, chosen_cameras

DESCRIPTION = """Convert recorded episodes to LIBERO-format files, one per instruction, at the policy's rate and image
size.

Each episode's gaps and topic rates are printed, and stored in OUT/import.json; OUT/images/ has still images of each.
Bags of `ros2 bag record` are accepted too, with --checkpoint."""
EXAMPLES = ("m2distill import bag episodes --out data/kitchen",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "bags",
        type=Path,
        nargs="*",
        metavar="BAG",
        help="rosbag2 folders, mcap or sqlite3, or folders of them, as the recorder's",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the new files")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="the checkpoint whose spec defines the observations; default: the one that the recorder stored",
    )
    parser.add_argument(
        "--instruction",
        help="of all these episodes; default: what the recorder stored, else what was published on the topic",
    )
    parser.add_argument(
        "--arm",
        help="preset or arm file (.yaml), for the gains of its commands; default: what the recorder stored",
    )
    parser.add_argument(
        "--namespace",
        help="namespace of the robot, empty for none; default: the only one that has all topics of a robot",
    )
    parser.add_argument(
        "--state",
        choices=("joints", "hand"),
        help="what a policy observes of the arm: joints, or hand (the pose on ee_pose); default: as the spec has it",
    )
    add_cameras(parser, "those of the spec")
    parser.add_argument(
        "--unlabelled", action="store_true", help="accept episodes without a verdict, such as recovered ones"
    )


def run(options: argparse.Namespace) -> None:
    from m2distill_policy.cameras import recorded_cameras
    from m2distill_policy.checkpoint import load_checkpoint
    from m2distill_training.data.rosbag.bag_import import REPORT, import_bags

    checkpoint = load_checkpoint(options.checkpoint) if options.checkpoint else None
    reports = import_bags(
        tuple(options.bags),
        options.out,
        checkpoint.spec if checkpoint else None,
        options.instruction,
        options.arm,
        options.unlabelled,
        chosen_cameras(options, recorded_cameras(checkpoint.metrics) if checkpoint else ()),
        options.namespace,
        options.state,
    )
    for report in reports:
        print(report.line())
    files = dict.fromkeys(report.file for report in reports if report.file)
    imported = sum(bool(report.file) for report in reports)
    print(f"{imported} of {len(reports)} episodes imported, {len(reports) - imported} dropped")
    for name in files:
        print(options.out / name)
    print(options.out / REPORT)
    for name in list(files)[:1]:
        print(f"next: m2distill learn --run RUN --data {options.out / name}")
        if options.state == "hand":
            print("a new run needs: m2distill train --state hand")
