"""Settings as fields of a frozen dataclass: default, description and range.

`ros/common/parameters.py` declares them as ROS parameters.

    @dataclass(frozen=True)
    class Parameters:
        rate_hz: float = parameter(20.0, "control rate", at_least=1.0, at_most=1000.0, read_only=True)
"""

import dataclasses
import os
from typing import Any


def parameter(
    default,
    description: str,
    *,
    at_least=None,
    at_most=None,
    choices: tuple[str, ...] = (),
    read_only: bool = False,
    path: bool = False,
) -> Any:
    """Return a dataclass field for one setting.

    Args:
        default: value of type bool, int, float, str or tuple of floats.
        description: help text, shown by `ros2 param describe` and in the reference.
        at_least: lower bound, included; required for a number, optional for each number of a tuple.
        at_most: upper bound, included; given together with `at_least`.
        choices: allowed strings; empty: any.
        read_only: the value is fixed when the node starts.
        path: the value is a path, in which a leading `~` is the home folder.

    Raises:
        TypeError: a number without both bounds.
    """
    if type(default) in (int, float) and (at_least is None or at_most is None):
        raise TypeError(f"a number needs at_least and at_most: {description}")
    return dataclasses.field(
        default=default,
        metadata={
            "description": description,
            "bounds": (at_least, at_most),
            "choices": choices,
            "read_only": read_only,
            "path": path,
        },
    )


def expanded(field: dataclasses.Field, value: Any) -> Any:
    """Return a setting's value, with the home folder in place of a leading `~` if it is a path.

    A shell does not expand `checkpoint:=~/x`, and no shell reads a parameter file.
    """
    return os.path.expanduser(value) if field.metadata["path"] else value
