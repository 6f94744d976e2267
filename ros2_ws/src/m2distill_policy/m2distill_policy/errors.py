"""Errors that a user can mend.

`UserError` is caught at the edges (command line, ROS node) and shown as one line without a traceback; every other
exception is a defect of ours and keeps its traceback. A message says what, got, allowed and the next step.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something outside the program is wrong and the message says how to mend it."""

    exit_status = 2  # of a command that ends with this error; 1 where the command ran and its criterion was not met


class SpecError(UserError):
    """A PolicySpec, or data that must match one, is malformed."""


class CheckpointError(UserError):
    """A checkpoint is missing, foreign, truncated or altered."""


class DataError(UserError):
    """A dataset lacks a key, has a wrong shape or holds values that are not finite."""


class MessageError(UserError):
    """A message does not hold what its own fields promise, or something this program cannot use."""


class PolicyLate(UserError):
    """A step of the policy takes longer than its owner waits."""


class AssetError(UserError):
    """Simulation assets are missing or incomplete."""


class RendererError(UserError):
    """No image can be drawn: there is no renderer, or it has broken down."""


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> str:
    """The message for a name that is not one of `allowed`, with the nearest one suggested."""
    options = sorted(allowed)
    near = difflib.get_close_matches(name, options, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (allowed: {', '.join(options)})"


def require_at_least(least: int, **values: float) -> None:
    """Raise UserError for the first of `values` that is below `least`."""
    for name, value in values.items():
        if value < least:
            raise UserError(f"{name} is {value}, expected at least {least}")
