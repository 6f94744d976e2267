"""The command `m2distill info`."""

import argparse
import json

from m2distill_policy.utils.argument_parser import Parser

DESCRIPTION = """Print what an issue needs: versions, ROS 2, renderer, GPU, text encoders and source of this
installation. Missing parts are named, and nothing is downloaded."""
EXAMPLES = ("m2distill info", "m2distill info --json > info.json")


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(options: argparse.Namespace) -> None:
    from m2distill_training.utils.installation import describe, lines

    found = describe()
    print(json.dumps(found, indent=2) if options.json else "\n".join(lines(found)))
