"""The command `m2distill data trim`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.data_editing import named_set, write_edited
from m2distill_training.cli.options import add_cameras, add_lossless, chosen_cameras

DESCRIPTION = """Write a new set whose episodes lack steps at the beginning or the end. The old set is not changed.

--idle removes the steps before the first and after the last commanded motion. --choices carries out everything that was
chosen on the page of m2distill data show."""
EXAMPLES = (
    "m2distill data trim data/kitchen_demo.hdf5 --idle --out data/kitchen_trimmed_demo.hdf5",
    "m2distill data trim data/kitchen_demo.hdf5 --episodes demo_3 --first 12 --last 80 --out data/cut_demo.hdf5",
)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("set", type=Path, nargs="?", metavar="SET", help="an HDF5 file or a LeRobot dataset")
    parser.add_argument("--episodes", nargs="+", default=[], help="names of the episodes; default, with --idle: all")
    parser.add_argument("--idle", action="store_true", help="remove idle steps at both ends")
    parser.add_argument("--first", type=int, help="first step to keep, from 0; default: 0")
    parser.add_argument("--last", type=int, help="last step to keep; default: the last one")
    parser.add_argument("--choices", type=Path, metavar="FILE", help="the choices that the page saved")
    parser.add_argument("--out", type=Path, required=True, help="the new file or folder")
    add_lossless(parser)
    add_cameras(parser)


def run(options: argparse.Namespace) -> None:
    from m2distill_policy.errors import UserError
    from m2distill_training.data.review.choices import Choices, read_choices
    from m2distill_training.data.review.edit import without_idle_ends

    by_steps = options.first is not None or options.last is not None
    if sum((options.choices is not None, options.idle, by_steps)) != 1:
        raise UserError("give one of --idle, --choices, or --first and --last")
    if options.choices is not None:
        demos, choices = read_choices(options.choices, options.set, chosen_cameras(options))
    else:
        if options.set is not None and by_steps and not options.episodes:
            raise UserError("--first and --last need --episodes, the names of what is trimmed")
        demos = named_set(options)
        steps = {each.name: each.steps or 0 for each in demos.contents()}
        Choices(keep={name: (0, steps.get(name, 1) - 1) for name in options.episodes}).check(demos)
        if options.idle:
            choices = without_idle_ends(demos, options.episodes)
        else:
            last = {name: steps[name] - 1 if options.last is None else options.last for name in options.episodes}
            choices = Choices(keep={name: (options.first or 0, last[name]) for name in options.episodes})
    write_edited(demos, choices, options)
