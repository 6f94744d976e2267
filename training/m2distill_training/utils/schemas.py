"""Schemas of JSON records, which somebody may have edited or copied incompletely.

A schema is one of:
- a type;
- a list of one schema, for lists of any length;
- a dict of schemas, for objects with at least these names;
- a function that returns True for a permitted value.
"""

import re
from collections.abc import Callable
from typing import Any

NO_TEXT = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")  # not permitted in XML, and so in an SVG image
LONGEST = 1000  # characters of a text
DEEPEST = 20  # levels of a record; ours have five


def is_shallow(value: Any, levels: int = DEEPEST) -> bool:
    """Return True if the value can be written again: Python reads deeper JSON than it writes."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(is_shallow(item, levels - 1) for item in items)


def fits(value: Any, schema: Any) -> bool:
    """Return True if the value has the schema."""
    if isinstance(schema, dict):
        return isinstance(value, dict) and all(name in value and fits(value[name], of) for name, of in schema.items())
    if isinstance(schema, list):
        return isinstance(value, list) and all(fits(item, schema[0]) for item in value)
    if isinstance(schema, type):
        return type(value) is schema
    return schema(value)


def is_anything(value: Any) -> bool:
    return True


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1e12


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and -1e12 < value < 1e12


def is_rate(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def is_text(value: Any) -> bool:
    """Return True for a text of at most LONGEST characters that an SVG image can show."""
    return type(value) is str and len(value) <= LONGEST and not NO_TEXT.search(value)


def optional(schema: Any) -> Callable[[Any], bool]:
    """Return the schema of a value that may be None."""
    return lambda value: value is None or fits(value, schema)


def non_empty(schema: Any) -> Callable[[Any], bool]:
    """Return the schema of a non-empty list."""
    return lambda value: fits(value, [schema]) and len(value) > 0
