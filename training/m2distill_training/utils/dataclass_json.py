"""Dataclasses from JSON values: strict, except that a field with a default may be missing.

So a key that a later version adds, with a default, does not make older files unreadable. An unknown key, a missing key
without a default and a wrong type are errors.
"""

import dataclasses
import functools
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from m2distill_policy.errors import unknown_name
from m2distill_training.utils.checks import ConfigError

PLAIN = (bool, int, float, str)  # types of a field; besides: dataclasses, tuple[T, ...], Literal and T | None


def read_dataclass(
    cls: type, value: Any, where: str, readers: Mapping[str, Callable[[Any, str], Any]] | None = None
) -> Any:
    """Build the (nested) dataclass `cls` from a JSON object.

    Args:
        cls: The dataclass.
        value: The JSON object.
        where: Its name in messages.
        readers: Functions of (value, where) that read some of the fields in place of their types.

    Raises:
        ConfigError: The value does not fit.
    """
    readers = readers or {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r:.80}, expected an object")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for name in value:
        if name not in fields:
            raise ConfigError(unknown_name(f"key of {where}", name, fields))
    missing = [name for name, field in fields.items() if name not in value and not has_default(field)]
    if missing:
        raise ConfigError(f"{where} has no {', '.join(missing)}")
    read = {name: functools.partial(_read, hints[name]) for name in fields} | dict(readers)
    return cls(**{name: read[name](item, f"{where}.{name}") for name, item in value.items()})


def has_default(field: dataclasses.Field) -> bool:
    """Return True if a dataclass field has a default value or factory."""
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def is_readable(kind: Any) -> bool:
    """Return True if `read_dataclass` can read a field of type `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return len(arguments) == 2 and arguments[1] is ... and is_readable(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return len(arguments) == 2 and type(None) in arguments and all(is_readable(each) for each in arguments)
    if origin is typing.Literal:
        return all(type(each) in PLAIN for each in arguments)
    return kind in (*PLAIN, type(None)) or dataclasses.is_dataclass(kind)


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return read_dataclass(kind, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} is {value!r:.80}, expected a list")
        return tuple(_read(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin in (typing.Union, types.UnionType):
        inner = next(each for each in arguments if each is not type(None))
        return None if value is None else _read(inner, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{where} is {value!r:.80}, allowed: {', '.join(map(str, arguments))}")
        return value
    if kind is float:
        if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
            raise ConfigError(f"{where} is {value!r:.80}, expected a number")
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{where} is {value!r:.80}, expected {kind.__name__}")
    return value
