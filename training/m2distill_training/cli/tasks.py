"""The command `m2distill tasks`."""

import argparse
from pathlib import Path

from m2distill_policy.suites import DEFAULT_SUITE
from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_assets

DESCRIPTION = "List the tasks of a suite; with --out, draw each at its first initial state into one image."
EXAMPLES = ("m2distill tasks --suite libero_goal --assets builtin --out libero_goal.jpg",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--suite", default=DEFAULT_SUITE, help="suite of LIBERO, or robosuite")
    add_assets(parser)
    parser.add_argument("--out", type=Path, help="image file, .jpg or .png")


def run(options: argparse.Namespace) -> None:
    from m2distill_policy.errors import UserError
    from m2distill_sim.suites import assets_of, find_task, suites

    find_task(options.suite, 0)
    tasks = suites()[options.suite]
    if options.out is None:
        print("\n".join(f"{task.index}  {task.instruction}" for task in tasks))
        print(f"next: m2distill tasks --suite {options.suite} --out {options.suite}.jpg draws them")
        return
    if options.out.suffix not in (".jpg", ".png"):
        raise UserError(f"--out is {options.out}, expected a name that ends in .jpg or .png")

    from m2distill_sim.contact_sheet import contact_sheet, write_image

    write_image(options.out, contact_sheet(tasks, assets_of(options.suite, options.assets)))
    print(options.out)
    print(f"next: open {options.out}")
