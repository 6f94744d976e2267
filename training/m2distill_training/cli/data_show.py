"""The command `m2distill data show`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_cameras, chosen_cameras

DESCRIPTION = """Write one HTML page per set: a film of each episode, plots of its joints, commands, gripper and gaps,
and flags by the rules of docs/data_tools.md.

The page has check boxes, and saves a file of choices for m2distill data drop --choices."""
EXAMPLES = ("m2distill data show data/kitchen/*.hdf5 --out review",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "sets", type=Path, nargs="*", metavar="SET", help="HDF5 files, LeRobot datasets, folders of bags"
    )
    parser.add_argument("--out", type=Path, default=Path("review"), help="folder of the pages")
    parser.add_argument(
        "--rerun", type=Path, metavar="FILE.rrd", help="also write all episodes for the Rerun viewer (extra `rerun`)"
    )
    add_cameras(parser)


def run(options: argparse.Namespace) -> None:
    from m2distill_policy.errors import UserError
    from m2distill_training.data.review.episodes import DemoSet, Episode, find_sets
    from m2distill_training.data.review.page import write_page

    sets = find_sets(options.sets, chosen_cameras(options))
    pages: dict[Path, DemoSet] = {}
    for demos in sets:
        page = options.out / f"{demos.name}.html"
        if page in pages:
            raise UserError(f"{pages[page].path} and {demos.path} would share the page {page}; give each its own --out")
        pages[page] = demos
    viewer = None
    if options.rerun is not None:
        from m2distill_training.data.review.rerun_file import RerunFile

        viewer = RerunFile(options.rerun)
    for page, demos in pages.items():

        def add(episode: Episode, name: str = demos.name) -> None:
            if viewer is not None:
                viewer.add(name, episode)

        flagged = write_page(demos, page, add)
        print(f"{page}: {len(flagged)} of {len(demos.contents())} episodes are flagged")
    if viewer is not None:
        viewer.close()
        print(options.rerun)
    page, choices = next(iter(pages)), f"{sets[0].name}_choices.json"
    print(f"next: open {page}, save the choices, then m2distill data drop --choices {choices} --out NEW")
