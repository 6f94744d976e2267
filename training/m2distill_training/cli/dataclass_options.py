"""Command-line options made from a dataclass: its fields, their types, and their comments or metadata as help."""

import argparse
import contextlib
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
    parser: Parser, config: Any, prefix: str = "", aliases: Mapping[str, Sequence[str]] = {}, skip: Sequence[str] = ()
) -> None:
    """Add an option for each field of the dataclass instance `config`, whose values are the defaults.

    A field of a nested dataclass is `--outer.inner`, in a group of its own; an entry of a tuple of dataclasses is
    `--outer.0.inner`.

    Args:
        parser: receives the options.
        config: an instance, possibly nested.
        prefix: of all names, as if `config` were a field of that name.
        aliases: dotted field name -> further names of its option.
        skip: dotted names of fields without an option.
    """
    if not prefix:
        _add(parser, parser, config, "", aliases, skip)
    elif dataclasses.fields(config):
        _add(parser, parser.add_argument_group(prefix, _summary(type(config))), config, f"{prefix}.", aliases, skip)


def read_dataclass_options(config: Any, options: argparse.Namespace, prefix: str = "") -> Any:
    """`config` with the values that the command line gave. Raises what the dataclass raises for a wrong value."""
    return dataclasses.replace(config, **option_values(config, options, prefix))


def option_values(config: Any, options: argparse.Namespace, prefix: str = "") -> dict[str, Any]:
    """The values that the command line gave, for the fields of `config` that have an option."""
    values: dict[str, Any] = {}
    start = f"{prefix}." if prefix else ""
    for field in dataclasses.fields(config):
        name, value = start + field.name, getattr(config, field.name)
        if nested := _nested(name, value):
            inner = tuple(read_dataclass_options(each, options, path) for path, each in nested)
            values[field.name] = inner if isinstance(value, tuple) else inner[0]
        elif hasattr(options, name):
            given = getattr(options, name)
            values[field.name] = tuple(given) if isinstance(given, list) else given
    return values


def field_help(kind: type) -> dict[str, str]:
    """Field -> its metadata `help`, else the comment behind it."""
    comments: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if dataclasses.is_dataclass(each):
            with contextlib.suppress(OSError, TypeError):  # a class whose source is not in a file
                comments |= dict(COMMENT.findall(inspect.getsource(each)))
    return {f.name: f.metadata.get("help", comments.get(f.name, "")) for f in dataclasses.fields(kind)}


def _add(parser: Parser, group: Any, config: Any, prefix: str, aliases: Mapping, skip: Sequence[str]) -> None:
    kind = type(config)
    helps, hints = field_help(kind), typing.get_type_hints(kind)
    nested = []
    for field in dataclasses.fields(kind):
        name, value = prefix + field.name, getattr(config, field.name)
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
        _add(parser, inner_group, value, f"{name}.", aliases, skip)


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
    if typing.get_origin(hint) is typing.Literal:
        return type(arguments[0]), ""
    if hint in SIMPLE:
        return hint, ""
    if typing.get_origin(hint) is tuple and arguments[0] in SIMPLE:
        return arguments[0], "*"
    if type(None) in typing.get_args(hint) and len(arguments) == 1 and arguments[0] in SIMPLE:
        return arguments[0], ""
    return None


def _summary(kind: type) -> str:
    """The docstring, without the signature that dataclasses generate."""
    text = inspect.getdoc(kind) or ""
    return "" if text.startswith(f"{kind.__name__}(") else text.partition("\n\nAttributes:")[0]
