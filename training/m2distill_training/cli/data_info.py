"""The command `m2distill data info`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_cameras, add_json, chosen_cameras

DESCRIPTION = """Print the number of episodes, their lengths, instructions and sizes, of HDF5 files, LeRobot datasets
and folders of bags.

No image is decoded. Steps of bags follow from their import, so only their time is listed."""
EXAMPLES = ("m2distill data info data/kitchen/*.hdf5 episodes",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "sets", type=Path, nargs="*", metavar="SET", help="HDF5 files, LeRobot datasets, folders of bags"
    )
    add_cameras(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    import json

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from m2distill_training.data.review.episodes import find_sets
    from m2distill_training.data.review.info import describe

    found = [describe(demos) for demos in find_sets(options.sets, chosen_cameras(options))]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    table = Table("set", "kind", "instruction", box=None, pad_edge=False)
    for name in ("episodes", "steps", "shortest", "median", "longest", "seconds", "MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in found:
        for i, (text, row) in enumerate(entry["instructions"].items()):
            steps = [row[key] for key in ("steps", "shortest", "median", "longest")]
            table.add_row(
                "" if i else escape(entry["set"]),
                "" if i else entry["kind"],
                escape(text or "-"),
                str(row["episodes"]),
                *("-" if x is None else f"{x:g}" for x in steps),
                f"{row['seconds']:.1f}",
                "" if i else f"{entry['bytes'] / 1e6:.1f}",
            )
    console = Console()
    console.print(table) if console.is_terminal else Console(width=240).print(table)
    print(f"next: m2distill data show {options.sets[0]}")
