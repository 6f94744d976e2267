"""The command `m2distill run`."""

import argparse

from m2distill_policy.bringup import system
from m2distill_policy.utils.argument_parser import Parser

DESCRIPTION = system.DESCRIPTION
EXAMPLES = (
    "m2distill run",
    "m2distill run --checkpoint runs/kitchen/current --arm franka_servo --dry-run",
)


def add_arguments(parser: Parser) -> None:
    system.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    system.start(*system.chosen_by(options))
