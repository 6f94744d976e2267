"""A setting is a field of a frozen dataclass: default, description, range. `ros/params.py` makes ROS parameters of it.

@dataclass(frozen=True)
class Parameters:
    rate_hz: float = parameter(20.0, "control rate", at_least=1.0, at_most=1000.0, read_only=True)
"""

import dataclasses
from typing import Any


def parameter(
    default, description: str, *, at_least=None, at_most=None, choices: tuple[str, ...] = (), read_only: bool = False
) -> Any:
    """A dataclass field. Numbers need both bounds, strings may have `choices`."""
    if type(default) in (int, float) and (at_least is None or at_most is None):
        raise TypeError(f"a number needs at_least and at_most: {description}")
    return dataclasses.field(
        default=default,
        metadata={
            "description": description,
            "bounds": (at_least, at_most),
            "choices": choices,
            "read_only": read_only,
        },
    )
