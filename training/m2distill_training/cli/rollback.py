"""The command `m2distill rollback`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser

DESCRIPTION = """Move RUN/current back to the checkpoint that was promoted before the present one. A policy node with
follow_checkpoint swaps to it."""
EXAMPLES = ("m2distill rollback --run runs/kitchen",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="run folder")


def run(options: argparse.Namespace) -> None:
    from m2distill_training.promotion.promotion import rollback

    print(f"rolled back: {options.run / 'current'} -> stages/{rollback(options.run)}/checkpoint")
    print(f"next: m2distill run --checkpoint {options.run / 'current'}; a running policy that follows it has swapped")
