"""The command `m2distill dashboard`."""

import argparse

from m2distill_policy.bringup import dashboard_cli
from m2distill_policy.utils.argument_parser import Parser

DESCRIPTION = dashboard_cli.DESCRIPTION
EXAMPLES = (
    "m2distill dashboard",
    "m2distill dashboard --episodes episodes --port 8771",
    "m2distill dashboard --host 0.0.0.0 --origin http://robot.lan:8770 --token-file ~/.m2distill/token",
)


def add_arguments(parser: Parser) -> None:
    dashboard_cli.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    return dashboard_cli.run(options)
