"""ROS parameters from a frozen dataclass: each is declared once, with description, range and whether it is read-only.

    @dataclass(frozen=True)
    class Parameters:
        rate_hz: float = parameter(20.0, "control rate", at_least=1.0, at_most=1000.0, read_only=True)

`declare(node, Parameters)` makes values outside the range impossible to set; `read(node, Parameters)` returns the
values of the moment.
"""

import dataclasses
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node

T = TypeVar("T")


def parameter(default, description: str, *, at_least=None, at_most=None, choices: tuple[str, ...] = (),
              read_only: bool = False) -> Any:
    """A dataclass field. Numbers need both bounds, strings may have `choices`."""
    if type(default) in (int, float) and (at_least is None or at_most is None):
        raise TypeError(f"a number needs at_least and at_most: {description}")
    return dataclasses.field(default=default, metadata={
        "description": description, "bounds": (at_least, at_most), "choices": choices, "read_only": read_only})


def declare(node: Node, cls: type) -> None:
    """Declare every field of `cls` on the node. Raises rclpy's ParameterException when a start value is not allowed."""
    choices = {f.name: f.metadata["choices"] for f in dataclasses.fields(cls) if f.metadata["choices"]}

    def refuse_unknown_choice(parameters) -> SetParametersResult:
        for p in parameters:
            if p.name in choices and p.value not in choices[p.name]:
                return SetParametersResult(
                    successful=False, reason=f"{p.name} is {p.value!r}, allowed: {', '.join(choices[p.name])}")
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(refuse_unknown_choice)
    for field in dataclasses.fields(cls):
        node.declare_parameter(field.name, field.default, _descriptor(field))


def read(node: Node, cls: type[T]) -> T:
    return cls(**{f.name: node.get_parameter(f.name).value for f in dataclasses.fields(cls)})


def _descriptor(field: dataclasses.Field) -> ParameterDescriptor:
    meta = field.metadata
    descriptor = ParameterDescriptor(description=meta["description"], read_only=meta["read_only"])
    low, high = meta["bounds"]
    if meta["choices"]:
        descriptor.additional_constraints = "one of " + ", ".join(meta["choices"])
    if type(field.default) is float:
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    if type(field.default) is int:
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
    return descriptor
