"""What a JSON document has to look like, for records that somebody may have edited or copied badly.

A form is a type; a list of one form, for lists of any length; a dict of forms, for objects with at least these names;
or a function that says whether a value is right.
"""

import re
from collections.abc import Callable
from typing import Any

NO_TEXT = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")  # what XML, and so an SVG image, cannot hold
LONGEST = 1000
DEEPEST = 20  # levels of a record; ours have five


def is_shallow(value: Any, levels: int = DEEPEST) -> bool:
    """So that it can be written again: JSON is read to a greater depth than Python writes it."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(is_shallow(item, levels - 1) for item in items)


def fits(value: Any, form: Any) -> bool:
    if isinstance(form, dict):
        return isinstance(value, dict) and all(name in value and fits(value[name], of) for name, of in form.items())
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(item, form[0]) for item in value)
    if isinstance(form, type):
        return type(value) is form
    return form(value)


def is_anything(value: Any) -> bool:
    return True


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1e12


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and -1e12 < value < 1e12


def is_rate(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def is_text(value: Any) -> bool:
    """That an image can show."""
    return type(value) is str and len(value) <= LONGEST and not NO_TEXT.search(value)


def optional(form: Any) -> Callable[[Any], bool]:
    """That, or null."""
    return lambda value: value is None or fits(value, form)


def non_empty(form: Any) -> Callable[[Any], bool]:
    """A list of them, not empty."""
    return lambda value: fits(value, [form]) and len(value) > 0
