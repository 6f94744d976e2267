"""The command `m2distill bag recover`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser

DESCRIPTION = """Finish the episodes that a killed recorder left open: every message that reached the file becomes part
of a complete episode.

These episodes have no verdict yet; m2distill import bag accepts them with --unlabelled."""
EXAMPLES = ("m2distill bag recover episodes",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help="folders of the recorder")


def run(options: argparse.Namespace) -> None:
    from m2distill_policy.errors import UserError
    from m2distill_policy.recording.recovery import recover_episodes

    if not options.folders:
        raise UserError("no folder given; name the recorder's")
    for folder in options.folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; name the recorder's")
        found = recover_episodes(folder)
        for each in found:
            print(f"{each.path}: {each.messages} messages, {each.seconds:.1f} s")
        if found:
            print(f"next: m2distill data show {folder}")
        else:
            print(f"{folder}: no open episode")
