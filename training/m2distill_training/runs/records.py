"""Files of a run folder: JSON records and lines that are written whole, checked when read, and locked.

Every file is written under a temporary name, flushed and renamed. Every record and every line has a schema version,
which `read_json` and `read_lines` check and remove (m2distill_policy.utils.schema). A .jsonl file grows by lines; a
last line cut short by a crash is left out when it is read.
"""

import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from m2distill_policy.errors import UserError
from m2distill_policy.utils.files import lock, write_atomically
from m2distill_policy.utils.schema import with_schema, without_schema
from m2distill_training.utils.schemas import fits, is_anything, is_shallow

RESTORE = "restore it from a copy"


class RunError(UserError):
    """A run folder cannot be used as requested, or training cannot continue."""


class BusyError(RunError):
    """Another process holds the lock of a folder."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` to `path` and create its folder if needed.

    After a RunError the previous content is still there.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def write_json(path: Path, value: object, schema: object = is_anything) -> None:
    """Write a record. Raises RunError for one that `read_json` would reject."""
    _check_readable(path, value, schema)
    write_atomic(path, (json.dumps(with_schema(value), indent=2) + "\n").encode())


def read_json(path: Path, schema: object = is_anything, remedy: str = RESTORE) -> Any:
    """Return the content of a JSON file.

    Args:
        path: the file.
        schema: what the content must look like, see schemas.py.
        remedy: what the user can do about a file that is missing or damaged.

    Raises:
        RunError: the file is missing or damaged.
        NewerSchema: a newer version wrote it.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read ({error}); {remedy}") from None
    content = without_schema(content, path)
    if not is_shallow(content) or not fits(content, schema):
        raise RunError(f"{path} is damaged or of another version; {remedy}")
    return content


def append_line(path: Path, line: dict, schema: object = is_anything) -> None:
    """Append a line, completely or not at all. Raises RunError for one that `read_lines` would reject."""
    _check_readable(path, line, schema)
    content = (json.dumps(with_schema(line)) + "\n").encode()
    with writing(path), path.open("a+b", buffering=0) as file:
        end = _end_of_lines(file)
        try:
            file.truncate(end)
            while content:
                content = content[file.write(content) :]
        except OSError:
            file.truncate(end)  # a part of a line would damage the next one
            raise


def read_lines(path: Path, schema: object = is_anything, remedy: str = RESTORE) -> list[dict]:
    """Return the lines of a .jsonl file, without a last one cut short by a crash; empty if there is no file.

    Args:
        path: the file.
        schema: what each line, an object, must look like.
        remedy: what the user can do about a damaged file.

    Raises:
        RunError: the file is damaged.
        NewerSchema: a newer version wrote a line.
    """
    if not path.is_file():
        return []
    try:
        lines = [without_schema(json.loads(line), path) for line in path.read_text().split("\n")[:-1]]
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}); {remedy}") from None
    for number, line in enumerate(lines, 1):
        if not is_shallow(line) or not fits(line, {}) or not fits(line, schema):
            raise RunError(f"{path} is damaged in line {number}; {remedy}")
    return lines


def write_lines(path: Path, lines: Iterable[dict]) -> None:
    """Replace the content of a .jsonl file."""
    write_atomic(path, "".join(json.dumps(with_schema(line)) + "\n" for line in lines).encode())


def begin_folder(out: Path, kind: str, requested: dict) -> None:
    """Create the folder `out` for the settings `requested`, or check that it was created for the same ones.

    Args:
        out: the folder.
        kind: name of the record; the settings are kept in `<kind>.json`.
        requested: JSON values by name.

    Raises:
        RunError: the folder holds something else.
    """
    record = out / f"{kind}.json"
    if not record.is_file():
        if out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
            raise RunError(f"{out} is not empty and holds no {kind}; choose another --out")
        write_json(record, requested)
    begun = read_json(record, {})
    if other := [
        f"{name} {begun.get(name)} (requested: {value})"
        for name, value in requested.items()
        if begun.get(name) != value
    ]:
        raise RunError(f"{out} holds a {kind} of other settings: {', '.join(other)}; choose another --out")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk and similar errors into one line for the user."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror}); what was saved before is unchanged. Correct the cause "
            "and repeat the command, train with --resume"
        ) from None


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file `path`. Raises BusyError with the message `busy` if another process holds it.

    On a file system without locks a warning is printed, and nothing prevents a second process.
    """
    with writing(path):
        file = path.open("w")
    with file:
        try:
            free = lock(file.fileno(), path)
        except OSError as error:
            raise RunError(f"{path} cannot be locked ({error.strerror}); choose another folder") from None
        if not free:
            raise BusyError(busy)
        yield


def _end_of_lines(file: io.FileIO) -> int:
    """Return the size of a file without a last line cut short by a crash."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - 4096)
        file.seek(begin)
        if (newline := file.read(end - begin).rfind(b"\n")) >= 0:
            return begin + newline + 1
        end = begin
    return 0


def _check_readable(path: Path, value: object, schema: object) -> None:
    if not is_shallow(value) or not fits(value, schema):
        raise RunError(
            f"{path} would hold values that cannot be read again, such as a text of over 1000 characters or a number "
            "out of range; it is not written"
        )
