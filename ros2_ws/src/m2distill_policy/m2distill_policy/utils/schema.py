"""Schema version of every record that m2distill writes and reads back.

A record holds `schema`. A file without one has version 1, as the first files had. A higher version than SCHEMA is
rejected. No training, torch or ROS import here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m2distill_policy.errors import UserError

KEY = "schema"
ENTRIES = "records"  # of a record that is a list
SCHEMA = 1  # counts up when a change makes older versions misread a record


class NewerSchema(UserError):
    """A record was written by a newer version."""

    def __init__(self, schema: int, where: Path | str = ""):
        place = f"{where}: " if str(where) else ""
        super().__init__(
            f"{place}made by a newer m2distill (schema {schema}, this version reads up to {SCHEMA}); update it"
        )


def with_schema(record: Any) -> dict[str, Any]:
    """Return an object or a list of JSON values with the present schema version."""
    return {KEY: SCHEMA, **(record if isinstance(record, dict) else {ENTRIES: record})}


def check_label(labels: Mapping[str, str], where: Path | str) -> None:
    """Raise NewerSchema if labels, which are texts, have a higher version. `with_labels` adds it."""
    version = labels.get(KEY, "")
    without_schema({KEY: int(version) if version.isdecimal() else 0}, where)


def with_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels, which are texts, with the present schema version."""
    return {KEY: str(SCHEMA), **labels}


def without_schema(record: Any, where: Path | str = "") -> Any:
    """Return what `with_schema` was given; a record without a version unchanged.

    Raises:
        NewerSchema: The record has a higher version. The message begins with `where`.
    """
    if not isinstance(record, dict) or KEY not in record:
        return record
    version = record[KEY]
    if type(version) is int and version > SCHEMA:
        raise NewerSchema(version, where)
    content = {name: value for name, value in record.items() if name != KEY}
    return content[ENTRIES] if set(content) == {ENTRIES} else content
