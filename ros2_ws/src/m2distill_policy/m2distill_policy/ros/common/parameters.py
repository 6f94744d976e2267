"""ROS parameters from a frozen dataclass of `parameters.parameter` fields: each is declared once, with description,
range and whether it is read-only. Tuples of numbers are arrays.

`declare(node, Parameters)` makes values outside the range impossible to set; `read(node, Parameters)` returns the
values of the moment; `refuse_changes` where they have been read for good.
"""

import array
import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from m2distill_policy.errors import UserError, unknown_name


class Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]


T = TypeVar("T", bound=Dataclass)


def declare(node: Node, cls: type[Dataclass], defaults: Mapping[str, Any] | None = None) -> None:
    """Declare every field of `cls` on the node; `defaults` take the place of the fields' own. Raises rclpy's
    ParameterException when a start value is not allowed."""
    choices = {f.name: f.metadata["choices"] for f in dataclasses.fields(cls) if f.metadata["choices"]}

    def refuse_unknown_choice(parameters) -> SetParametersResult:
        for p in parameters:
            if p.name in choices and p.value not in choices[p.name]:
                return SetParametersResult(
                    successful=False, reason=f"{p.name} is {p.value!r}, allowed: {', '.join(choices[p.name])}"
                )
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(refuse_unknown_choice)
    for field in dataclasses.fields(cls):
        default = (defaults or {}).get(field.name, field.default)
        if isinstance(default, tuple):  # an empty array needs an explicit type
            kind = typing.get_args(field.type)[0]
            empty = Parameter.Type.STRING_ARRAY if kind is str else Parameter.Type.DOUBLE_ARRAY
            default = [kind(v) for v in default] or empty
        node.declare_parameter(field.name, default, _descriptor(field))


def refuse_unknown(node: Node) -> None:
    """Raises UserError where the node was started with a parameter that it has not declared. rclpy passes over it, and
    a limit whose name is misspelt would not hold."""
    declared = node.list_parameters([], 0).names
    for name in node._parameter_overrides:  # no public function tells
        if name not in declared and not name.startswith("qos_overrides."):  # rclpy declares those with each topic
            raise UserError(f"{unknown_name('parameter', name, declared)}; nothing was started")


def read(node: Node, cls: type[T]) -> T:
    return cls(**{f.name: _value(node, f) for f in dataclasses.fields(cls)})


def refuse_changes(node: Node, *groups: type[Dataclass], why: Callable[[], str], free: tuple[str, ...] = ()) -> None:
    """While `why()` has a reason, nothing of these groups but what is `free` can be set to another value."""
    names = {field.name for group in groups for field in dataclasses.fields(group)} - set(free)

    def refuse(parameters: list[Parameter]) -> SetParametersResult:
        reason = why()
        for p in parameters:
            if reason and p.name in names and _plain(p.value) != _plain(node.get_parameter_or(p.name).value):
                return SetParametersResult(successful=False, reason=f"{p.name}: {reason}")
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(refuse)


def _value(node: Node, field: dataclasses.Field) -> Any:
    value = node.get_parameter_or(field.name).value
    return tuple(value or ()) if isinstance(field.default, tuple) else value


def _plain(value: Any) -> Any:
    """rclpy gives an array as an array.array or as a list."""
    return list(value) if isinstance(value, Sequence | array.array) and not isinstance(value, str) else value


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
