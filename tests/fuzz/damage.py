"""Edits of a valid file. An edit is a short tuple, so that a failing case can be read and repeated."""

import copy
import json
import math
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("M2DISTILL_FUZZ", "0"))
Files = dict[str, Any]  # path below the case's folder -> bytes, or reading.Link

NUMBERS = [
    bytes(8),
    b"\xff" * 8,
    b"\x7f" + b"\xff" * 7,
    b"\xff" * 7 + b"\x7f",
    bytes(3) + b"\x80" + bytes(4),
    bytes(4) + b"\x01" + bytes(3),
    b"\x01",
    b"\xff\xff",
]
DEEP, LONG, DIGITS = "<deep>", "<long>", "<digits>"  # written as JSON that Python's own encoder does not produce
RAW = {DEEP: "[" * 100_000 + "]" * 100_000, LONG: '"' + "x" * 300_000 + '"', DIGITS: "9" * 6000}
ODD = [
    None,
    True,
    -1,
    0,
    1,
    3,
    2**31,
    2**63,
    10**30,
    0.5,
    -0.0,
    1e308,
    math.nan,
    math.inf,
    "",
    "x",
    "a\0b",
    "\ud800",
    "..",
    "../../outside",
    "/etc/passwd",
    "nan",
    "1e999",
    [],
    {},
    [None],
    [[]],
    {"": 0},
    DEEP,
    LONG,
    DIGITS,
]


def fuzzed(cases: int, **strategies) -> Callable:
    """Return `given` with `cases` fixed cases, or with M2DISTILL_FUZZ random ones."""
    how = settings(
        max_examples=EXAMPLES or cases,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: how(given(**strategies)(test))


_place = st.floats(0, 1, exclude_max=True)  # fraction of a file's length
_length = st.sampled_from([1, 2, 4, 8, 16, 64, 500, 5000])
byte_edits = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), _place, st.integers(0, 7)),
        st.tuples(st.just("write"), _place, st.sampled_from(NUMBERS) | st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("cut"), _place),
        st.tuples(st.just("drop"), _place, _length),
        st.tuples(st.just("splice"), _place, _place, _length),  # from, to
        st.tuples(st.just("insert"), _place, st.binary(min_size=1, max_size=64)),
    ),
    min_size=1,
    max_size=4,
)


def edit_bytes(content: bytes, edits: list[tuple]) -> bytes:
    for kind, place, *rest in edits:
        at = int(place * len(content))
        if kind == "flip" and content:
            content = content[:at] + bytes([content[at] ^ 1 << rest[0]]) + content[at + 1 :]
        elif kind == "write":
            content = content[:at] + rest[0] + content[at + len(rest[0]) :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "drop":
            content = content[:at] + content[at + rest[0] :]
        elif kind == "splice":
            to = int(rest[0] * len(content))
            content = content[:to] + content[at : at + rest[1]] + content[to:]
        elif kind == "insert":
            content = content[:at] + rest[0] + content[at:]
    return content


value_edits = st.lists(
    st.tuples(
        _place,
        st.sampled_from(["put", "put", "put", "drop", "add", "wrap", "swap"]),
        st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=20),
    ),
    min_size=1,
    max_size=3,
)


def edit_values(document: Any, edits: list[tuple]) -> Any:
    """Return a copy in which some values are replaced, removed, added, wrapped or swapped."""
    document = [copy.deepcopy(document)]
    for place, kind, value in edits:
        found = list(_places(document))
        holder, key = found[int(place * len(found))]
        if kind == "put":
            holder[key] = copy.deepcopy(value)
        elif kind == "wrap":
            holder[key] = [holder[key]]
        elif kind == "swap":
            other, another = found[-1 - int(place * len(found))]
            holder[key], other[another] = copy.deepcopy(other[another]), copy.deepcopy(holder[key])
        elif kind == "add" and isinstance(holder[key], dict):
            holder[key][str(value)] = copy.deepcopy(value)
        elif kind == "add" and isinstance(holder[key], list):
            holder[key].append(copy.deepcopy(value))
        elif kind == "drop" and holder is not document:
            del holder[key]
    return document[0]


def _places(holder: Any):
    keys = list(holder) if isinstance(holder, dict) else range(len(holder))
    for key in keys:
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _places(holder[key])


def to_json(document: Any) -> bytes:
    text = json.dumps(document)
    for name, raw in RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text.encode()


def each_value_odd(document: Any) -> list[Any]:
    """Return one copy for every pair of a value and an odd value that replaces it."""
    places = len(list(_places([document])))
    return [edit_values(document, [((i + 0.5) / places, "put", odd)]) for i in range(places) for odd in ODD]
