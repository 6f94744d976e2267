"""Errors that a user can fix.

Command lines and ROS nodes catch `UserError` and print it as one line without a traceback. Every other exception is a
defect of the program and keeps its traceback. A message states what happened, the value, what is allowed and the next
step.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A problem outside the program; the message states how to fix it, in one line."""

    exit_status = 2  # of a command that ends with this error; 1 where the command ran and its criterion was not met

    def __init__(self, *arguments: object):
        super().__init__(*(_one_line(argument) for argument in arguments))


class SpecError(UserError):
    """A malformed PolicySpec, or data that does not match one."""


class CheckpointError(UserError):
    """A missing, truncated or altered checkpoint, or one of another program."""


class DataError(UserError):
    """A dataset that lacks a key, has a wrong shape or holds values that are not finite."""


class MessageError(UserError):
    """A message whose fields contradict each other, or that this program cannot use."""


class PolicyHoldError(UserError):
    """A policy that has no action for a step; the arm is held."""


class PolicyTimeoutError(PolicyHoldError):
    """A policy step that takes longer than its time limit."""


class AssetError(UserError):
    """Missing or incomplete simulation assets."""


class RendererError(UserError):
    """A missing renderer, or one that failed."""


def _one_line(argument: object) -> object:
    """Return a text without line breaks: messages of libraries, which some errors quote, may have them."""
    return " ".join(argument.split()) if isinstance(argument, str) and "\n" in argument else argument


def nearest_name(name: str, allowed: Iterable[str]) -> str:
    """Return the name of `allowed` that is spelt most like `name`; empty if none is close."""
    return next(iter(difflib.get_close_matches(name, sorted(allowed), n=1)), "")


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Return the message for a name that is not one of `allowed`, with the nearest name as a suggestion."""
    options = sorted(allowed)
    near = nearest_name(name, options)
    hint = f"; did you mean {near!r}?" if near else ""
    return f"unknown {kind} {name!r}{hint} (allowed: {', '.join(options)})"


def require_at_least(least: int, **values: float) -> None:
    """Raise UserError for the first of `values` that is below `least`."""
    for name, value in values.items():
        if value < least:
            raise UserError(f"{name} is {value}, expected at least {least}")
