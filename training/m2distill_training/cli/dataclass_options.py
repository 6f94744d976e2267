"""Command-line options made from a dataclass: its fields, their types, and their comments or metadata as help."""

import argparse
import ast
import dataclasses
import inspect
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from m2distill_policy.utils.argument_parser import Parser, add_metavar, truth

COMMENT = re.compile(r"^    (\w+): .*?  # (.+)$", re.M)
SIMPLE = (bool, int, float, str)


def add_dataclass_options(
    parser: Parser,
    config: Any,
    aliases: Mapping[str, Sequence[str]] = {},
    skip: Sequence[str] = (),
    groups: Mapping[str, str] = {},
) -> None:
    """Add an option for each field of the dataclass instance `config`, whose values are the defaults.

    A field of a nested dataclass is `--outer.inner`, in a group of its own; an entry of a tuple of dataclasses is
    `--outer.0.inner`.

    Args:
        parser: receives the options.
        config: an instance, possibly nested.
        aliases: dotted field name -> further names of its option.
        skip: dotted names of fields without an option.
        groups: dotted name of a nested dataclass -> the prefix of its options in place of that name.
    """
    _add(parser, parser, config, "", aliases, skip, groups)


def read_dataclass_options(config: Any, options: argparse.Namespace, groups: Mapping[str, str] = {}) -> Any:
    """`config` with the values that the command line gave. Raises what the dataclass raises for a wrong value."""
    return _read(config, options, "", groups)


def field_help(kind: type) -> dict[str, str]:
    """Field -> its metadata `help`, else the comment behind it."""
    comments: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if dataclasses.is_dataclass(each):
            comments |= dict(COMMENT.findall(_source(each)))
    return {f.name: f.metadata.get("help", comments.get(f.name, "")) for f in dataclasses.fields(kind)}


def _add(
    parser: Parser, group: Any, config: Any, prefix: str, aliases: Mapping, skip: Sequence[str], groups: Mapping
) -> None:
    kind = type(config)
    helps, hints = field_help(kind), typing.get_type_hints(kind)
    nested = []
    for field in dataclasses.fields(kind):
        name, value = _name(prefix, field, groups), getattr(config, field.name)
        if name in skip:
            continue
        if inner := _nested(name, value):
            nested += inner
            continue
        if (type_and_count := _simple(hints[field.name])) is None:
            continue
        type_, nargs = type_and_count
        option: dict[str, Any] = {"dest": name, "default": value, "help": helps[field.name].replace("%", "%%")}
        if type_ is bool:
            option |= {"nargs": "?", "const": True, "type": truth, "metavar": "true|false"}
        else:
            option |= {"type": type_} | ({"nargs": nargs} if nargs else {})
        names = [f"--{each.replace('_', '-')}" for each in (*aliases.get(name, ()), name)]
        add_metavar(names, option)
        group.add_argument(*names, **option)
    for name, value in nested:
        inner_group = parser.add_argument_group(name, _summary(type(value)))
        _add(parser, inner_group, value, f"{name}.", aliases, skip, groups)


def _name(prefix: str, field: dataclasses.Field, groups: Mapping[str, str]) -> str:
    return groups.get(prefix + field.name, prefix + field.name)


def _nested(name: str, value: Any) -> list[tuple[str, Any]]:
    """The dataclass instances in a field's value, with their dotted names."""
    if dataclasses.is_dataclass(value):
        return [(name, value)]
    if isinstance(value, tuple) and value and all(map(dataclasses.is_dataclass, value)):
        return [(f"{name}.{i}", each) for i, each in enumerate(value)]
    return []


def _simple(hint: Any) -> tuple[type, str] | None:
    """The type of an option's value, and its number of values ("" for one); None for what no option can express."""
    arguments = [each for each in typing.get_args(hint) if each is not type(None)]
    if hint in SIMPLE:
        return hint, ""
    if typing.get_origin(hint) is tuple and arguments[0] in SIMPLE:
        return arguments[0], "*"
    if type(None) in typing.get_args(hint) and len(arguments) == 1 and arguments[0] in SIMPLE:
        return arguments[0], ""
    return None


def _summary(kind: type) -> str:
    """The docstring that the source holds; dataclasses write one themselves where there is none."""
    body = ast.parse(inspect.cleandoc(_source(kind))).body
    return (ast.get_docstring(body[0]) if body else None) or ""  # type: ignore[arg-type]


def _source(kind: type) -> str:
    """The source of a class; nothing for one that was made without a file."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""


def _read(config: Any, options: argparse.Namespace, prefix: str, groups: Mapping[str, str]) -> Any:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        name, value = _name(prefix, field, groups), getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            values[field.name] = _read(value, options, f"{name}.", groups)
        elif _nested(name, value):
            values[field.name] = tuple(
                _read(each, options, f"{inner}.", groups) for inner, each in _nested(name, value)
            )
        elif hasattr(options, name):
            given = getattr(options, name)
            values[field.name] = tuple(given) if isinstance(given, list) else given
    return dataclasses.replace(config, **values)
