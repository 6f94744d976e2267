"""ROS parameters from frozen dataclasses of `utils.parameters.parameter` fields.

Each field is declared once, with description, range and whether it is read-only. Tuples of numbers become arrays.
"""

import array
import dataclasses
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from m2distill_policy.errors import UserError, unknown_name
from m2distill_policy.utils.parameters import expanded


class Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]


T = TypeVar("T", bound=Dataclass)


def declare(node: Node, cls: type[Dataclass], defaults: Mapping[str, Any] | None = None) -> None:
    """Declare every field of `cls` on the node; values outside a field's range are rejected from then on.

    Args:
        node: Node that gets the parameters.
        cls: Dataclass of parameters.
        defaults: Defaults that replace the fields' own, by name.

    Raises:
        rclpy.exceptions.ParameterException: A start value is not allowed.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}

    def reject_wrong_values(parameters) -> SetParametersResult:
        reasons = (_why_wrong(fields[p.name], p.value) for p in parameters if p.name in fields)
        reason = next(filter(None, reasons), "")
        return SetParametersResult(successful=not reason, reason=reason)

    node.add_on_set_parameters_callback(reject_wrong_values)
    for field in dataclasses.fields(cls):
        default = (defaults or {}).get(field.name, field.default)
        if isinstance(default, tuple):  # rclpy cannot infer the type of an empty array
            kind = typing.get_args(field.type)[0]
            empty = Parameter.Type.STRING_ARRAY if kind is str else Parameter.Type.DOUBLE_ARRAY
            default = [kind(v) for v in default] or empty
        node.declare_parameter(field.name, default, _descriptor(field))
        if node.get_parameter_or(field.name).type_ == Parameter.Type.NOT_SET:  # no value: `ros2 param dump` fails
            node.set_parameters([Parameter(field.name, default, [])])


def _why_wrong(field: dataclasses.Field, value: Any) -> str:
    """Return why a choice or an array of numbers is not allowed; rclpy checks the range of single numbers only."""
    choices, (low, high) = field.metadata["choices"], field.metadata["bounds"]
    if choices and value not in choices:
        return f"{field.name} is {value!r}, allowed: {', '.join(choices)}"
    if not isinstance(value, Sequence | array.array) or typing.get_args(field.type)[:1] != (float,):
        return ""
    if any(math.isnan(number) for number in value):
        return f"{field.name} is {list(value)}, which contains a value that is not a number"
    if low is not None and not all(low <= number <= high for number in value):
        return f"{field.name} is {list(value)}, allowed {low:g} to {high:g} each"
    return ""


def reject_undeclared(node: Node) -> None:
    """Raise UserError if the node was started with a parameter that it has not declared.

    rclpy ignores such a parameter, so a limit with a misspelt name, or the QoS of a topic, would have no effect.
    """
    declared = node.list_parameters([], 0).names
    for name in node._parameter_overrides:  # rclpy has no public function for them
        if name in declared:
            continue
        if name.startswith("qos_overrides."):
            raise UserError(
                f"parameter {name}: the QoS of this topic is fixed (docs/ros.md), so set that of the other node; "
                "nothing was started"
            )
        raise UserError(f"{unknown_name('parameter', name, declared)}; nothing was started")


def read(node: Node, cls: type[T]) -> T:
    """Return the present values of the parameters of `cls`."""
    return cls(**{f.name: _value(node, f) for f in dataclasses.fields(cls)})


def reject_changes(node: Node, *groups: type[Dataclass], why: Callable[[], str], free: tuple[str, ...] = ()) -> None:
    """Reject other values for the parameters of `groups` while `why()` returns a reason.

    Args:
        node: Node that has the parameters.
        groups: Dataclasses whose parameters are protected.
        why: Function that returns the reason, or an empty text if changes are allowed now.
        free: Names of parameters that can always be changed.
    """
    names = {field.name for group in groups for field in dataclasses.fields(group)} - set(free)

    def reject(parameters: list[Parameter]) -> SetParametersResult:
        reason = why()
        for p in parameters:
            if reason and p.name in names and _plain(p.value) != _plain(node.get_parameter_or(p.name).value):
                return SetParametersResult(successful=False, reason=f"{p.name}: {reason}")
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(reject)


def _value(node: Node, field: dataclasses.Field) -> Any:
    value = node.get_parameter_or(field.name).value
    return tuple(value or ()) if isinstance(field.default, tuple) else expanded(field, value)


def _plain(value: Any) -> Any:
    """Return an array as a list: rclpy returns it as an array.array or as a list."""
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
