"""What the commands that write a new set of demonstrations share."""

import argparse
from typing import TYPE_CHECKING

from m2distill_training.cli.options import chosen_cameras

if TYPE_CHECKING:  # they import h5py, which would make --help slow
    from m2distill_training.data.review.choices import Choices
    from m2distill_training.data.review.episodes import DemoSet


def named_set(options: argparse.Namespace) -> "DemoSet":
    """Open the set that the command names. Raises UserError if it names none."""
    from m2distill_policy.errors import UserError
    from m2distill_training.data.review.episodes import open_set

    if options.set is None:
        raise UserError("no set given; name the one that holds the episodes")
    return open_set(options.set, chosen_cameras(options))


def write_edited(demos: "DemoSet", choices: "Choices", options: argparse.Namespace) -> None:
    """Write the new set and print what it holds."""
    from m2distill_training.data.review.edit import edit_set

    count = edit_set(demos, choices, options.out, options.lossless)
    print(f"{options.out}: {count} episodes; {len(choices.drop)} dropped, {len(choices.keep)} trimmed")
    print(f"next: m2distill data info {options.out}")
