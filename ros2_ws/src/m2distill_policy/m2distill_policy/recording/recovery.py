"""Recovery of episodes that a crashed recorder left open: every message in the file becomes part of a valid bag.

An open episode is an mcap file without an end. mcap is a sequence of records, each with its length, some of them inside
chunks, which the recorder does not compress. Records are read in order until one is incomplete or not of a recorder.
"""

import json
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rosbags.rosbag2 import Reader, WriterError
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore

from m2distill_policy.errors import UserError
from m2distill_policy.recording.episode import DISCARDED, LABELS, BagWriter, Recordings, move_durably, publish_episode

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK = 3, 4, 5, 6  # kinds of records; a crashed machine may leave zeros
CHUNK_HEAD = struct.Struct("<QQQI")  # first and last time, size, checksum; then compression and length of the content
MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, times of logging and of publishing
RECOVERING = "recovering"
# Errors from a record that no recorder wrote. SyntaxError: rosbags creates Python classes named after the types.
INVALID_RECORD_ERRORS = (KeyError, ValueError, struct.error, SyntaxError, TypesysError, WriterError)


@dataclass(frozen=True)
class RecoveredEpisode:
    """Result of one recovery."""

    name: str
    path: Path
    messages: int
    seconds: float


def recover_episodes(root: Path) -> list[RecoveredEpisode]:
    """Finish every open episode below `root`. One without a readable message is moved to `discarded`.

    Raises:
        UserError: a recorder uses the folder, or the final path of an episode is taken.
    """
    with Recordings(root) as recordings:
        return [_recover(folder, root) for folder in recordings.unfinished()]


def _recover(folder: Path, root: Path) -> RecoveredEpisode:
    target = root / folder.name
    if _is_complete(target):  # a recovery crashed after its rename
        shutil.rmtree(folder)
    elif target.exists():
        raise UserError(f"{target} exists, so {folder} cannot be recovered to that path; move it elsewhere")
    elif _is_complete(folder):  # the recorder crashed between finishing and renaming
        publish_episode(folder, target)
    elif _rebuild(folder, root / RECOVERING / folder.name, target):
        shutil.rmtree(folder)
    else:
        move_durably(folder, root / DISCARDED / folder.name)
        return RecoveredEpisode(folder.name, root / DISCARDED / folder.name, 0, 0.0)
    with Reader(target) as bag:
        return RecoveredEpisode(folder.name, target, bag.message_count, bag.duration * 1e-9)


def _is_complete(folder: Path) -> bool:
    try:
        with Reader(folder):
            return True
    except Exception:  # YAML and mcap: damaged or hostile bytes may raise anything
        return False


def _rebuild(folder: Path, scratch: Path, target: Path) -> bool:
    """Write a new bag of all readable messages; return False if there are none."""
    source, labels = folder / f"{folder.name}.mcap", folder / LABELS
    shutil.rmtree(scratch, ignore_errors=True)  # of a crashed recovery
    schemas: dict[int, tuple[str, str]] = {}  # type, definition
    channels: dict[int, tuple[str, str]] = {}  # topic, type
    bag = None
    if not source.is_file():  # the recorder crashed before it created the file
        return False
    with source.open("rb") as file, suppress(*INVALID_RECORD_ERRORS):
        for kind, body in _records(file):
            if kind == SCHEMA:
                name, _, definition = _read_strings(body[2:], 3)
                schemas[_read_uint16(body)] = name, definition
            elif kind == CHANNEL:
                channels[_read_uint16(body)] = _read_strings(body[4:], 1)[0], schemas[_read_uint16(body[2:])][0]
            elif kind == MESSAGE:
                channel, _, time_ns, _ = MESSAGE_HEAD.unpack_from(body)
                if bag is None:  # all channels precede the first message
                    types = get_typestore(Stores.EMPTY)
                    for name, definition in schemas.values():
                        types.register(get_types_from_msg(definition, name))
                    scratch.parent.mkdir(exist_ok=True)
                    bag = BagWriter(scratch, dict(channels.values()), types)
                bag.write(channels[channel][0], time_ns, body[MESSAGE_HEAD.size :])
    if bag is None or not bag.messages:
        return False
    bag.finish({**_read_labels(labels), "recovered": "true"}, target)
    return True


def _read_labels(path: Path) -> dict[str, str]:
    """Return the labels that are strings; none if the file is missing or damaged."""
    try:
        labels = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: x for name, x in labels.items() if isinstance(x, str)} if isinstance(labels, dict) else {}


def _records(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield kind and body of the complete records of a file, also of those inside chunks."""
    length = os.fstat(file.fileno()).st_size
    if file.read(len(MAGIC)) != MAGIC:
        return
    while len(head := file.read(9)) == 9 and head[0]:
        kind, size = head[0], int.from_bytes(head[1:], "little")
        if kind == CHUNK:
            compression = file.read(CHUNK_HEAD.size + 4)[CHUNK_HEAD.size :]
            file.seek(int.from_bytes(compression, "little") + 8, 1)  # continue with the records inside
            continue
        if size > length - file.tell():
            return
        yield kind, file.read(size)


def _read_uint16(body: bytes) -> int:
    return int.from_bytes(body[:2], "little")


def _read_strings(body: bytes, count: int) -> list[str]:
    """Return the first `count` strings, each with its length before it."""
    texts = []
    for _ in range(count):
        size = int.from_bytes(body[:4], "little")
        texts.append(body[4 : 4 + size].decode())
        body = body[4 + size :]
    return texts
