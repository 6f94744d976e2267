"""The command `m2distill instruct`."""

import argparse

from m2distill_policy.bringup import client_cli
from m2distill_policy.utils.argument_parser import Parser

DESCRIPTION = client_cli.INSTRUCT
EXAMPLES = ("m2distill instruct pick up the milk and place it in the basket", "m2distill instruct --stop")


def add_arguments(parser: Parser) -> None:
    client_cli.add_instruct_arguments(parser)
    parser.set_defaults(words=parser.words)


def run(options: argparse.Namespace) -> int:
    return client_cli.instruct(options.words)
