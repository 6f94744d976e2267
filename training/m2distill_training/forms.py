"""What a JSON document has to look like, for records that somebody may have edited or copied badly.

A form is a type; a list of one form, for lists of any length; a dict of forms, for objects with at least these names;
or a function that says whether a value is right.
"""

from typing import Any


def fits(value: Any, form: Any) -> bool:
    if isinstance(form, dict):
        return isinstance(value, dict) and all(name in value and fits(value[name], of) for name, of in form.items())
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(item, form[0]) for item in value)
    if isinstance(form, type):
        return type(value) is form
    return form(value)


def ANY(value: Any) -> bool:
    return True


def COUNT(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1e12
