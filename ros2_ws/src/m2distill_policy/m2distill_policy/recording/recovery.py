"""What a dead recorder left, made whole: every message that reached its file becomes part of a good bag.

An open episode is an mcap file without an end. mcap is a sequence of records, each with its length, some of them within
chunks, which the recorder does not compress: they are read one after the other until one is not whole, or holds what no
recorder writes.
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
from m2distill_policy.recording.episode import DISCARDED, LABELS, BagWriter, Recordings, appear, move

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK = 3, 4, 5, 6  # kinds of records; 0 is what a crashed machine may leave
CHUNK_HEAD = struct.Struct("<QQQI")  # first and last time, size, checksum; then compression and length of the content
MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, times of logging and of publishing
RECOVERING = "recovering"
# What comes of a record that no recorder wrote; SyntaxError: rosbags makes Python classes named like the types.
FOREIGN = (KeyError, ValueError, struct.error, SyntaxError, TypesysError, WriterError)


@dataclass(frozen=True)
class Recovered:
    name: str
    path: Path
    messages: int
    seconds: float


def recover(root: Path) -> list[Recovered]:
    """Finish every open episode below `root`; one without a readable message goes to `discarded`. Raises UserError
    while a recorder is at work there, and for an episode whose place is taken."""
    with Recordings(root) as recordings:
        return [_recover(folder, root) for folder in recordings.unfinished()]


def _recover(folder: Path, root: Path) -> Recovered:
    target = root / folder.name
    if _is_whole(target):  # a recovery died after its rename
        shutil.rmtree(folder)
    elif target.exists():
        raise UserError(f"{target} is in the way of what {folder} holds; move it elsewhere")
    elif _is_whole(folder):  # the recorder died between finishing and renaming
        appear(folder, target)
    elif _rebuild(folder, root / RECOVERING / folder.name, target):
        shutil.rmtree(folder)
    else:
        move(folder, root / DISCARDED / folder.name)
        return Recovered(folder.name, root / DISCARDED / folder.name, 0, 0.0)
    with Reader(target) as bag:
        return Recovered(folder.name, target, bag.message_count, bag.duration * 1e-9)


def _is_whole(folder: Path) -> bool:
    try:
        with Reader(folder):
            return True
    except Exception:  # YAML and mcap: damaged or hostile bytes fail in whatever way
        return False


def _rebuild(folder: Path, scratch: Path, target: Path) -> bool:
    """Whether there was any message that can be read."""
    source, labels = folder / f"{folder.name}.mcap", folder / LABELS
    shutil.rmtree(scratch, ignore_errors=True)  # of a recovery that died
    schemas: dict[int, tuple[str, str]] = {}  # type, definition
    channels: dict[int, tuple[str, str]] = {}  # topic, type
    bag = None
    if not source.is_file():  # the recorder died between making the two
        return False
    with source.open("rb") as file, suppress(*FOREIGN):
        for kind, body in _records(file):
            if kind == SCHEMA:
                name, _, definition = _texts(body[2:], 3)
                schemas[_number(body)] = name, definition
            elif kind == CHANNEL:
                channels[_number(body)] = _texts(body[4:], 1)[0], schemas[_number(body[2:])][0]
            elif kind == MESSAGE:
                channel, _, time_ns, _ = MESSAGE_HEAD.unpack_from(body)
                if bag is None:  # all channels come before the first message
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
    """Those that are texts; none from a file that is missing or damaged."""
    try:
        labels = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: x for name, x in labels.items() if isinstance(x, str)} if isinstance(labels, dict) else {}


def _records(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The whole records of a file, those within chunks too, until one is not whole."""
    length = os.fstat(file.fileno()).st_size
    if file.read(len(MAGIC)) != MAGIC:
        return
    while len(head := file.read(9)) == 9 and head[0]:
        kind, size = head[0], int.from_bytes(head[1:], "little")
        if kind == CHUNK:
            compression = file.read(CHUNK_HEAD.size + 4)[CHUNK_HEAD.size :]
            file.seek(int.from_bytes(compression, "little") + 8, 1)  # go on with the records within
            continue
        if size > length - file.tell():
            return
        yield kind, file.read(size)


def _number(body: bytes) -> int:
    return int.from_bytes(body[:2], "little")


def _texts(body: bytes, count: int) -> list[str]:
    texts = []
    for _ in range(count):
        size = int.from_bytes(body[:4], "little")
        texts.append(body[4 : 4 + size].decode())
        body = body[4 + size :]
    return texts
