"""The command `m2distill service`."""

import argparse

from m2distill_policy.bringup import client_cli
from m2distill_policy.utils.argument_parser import Parser

DESCRIPTION = client_cli.SERVICE
EXAMPLES = ("m2distill service sim/reset recorder/start", "m2distill service sim/reset --set task=1")


def add_arguments(parser: Parser) -> None:
    client_cli.add_service_arguments(parser)
    parser.set_defaults(words=parser.words)


def run(options: argparse.Namespace) -> int:
    return client_cli.service(options.words)
