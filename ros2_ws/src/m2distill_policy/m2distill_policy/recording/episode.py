"""Episodes on disk as they are recorded: standard rosbag2 folders of one mcap file each. No ROS here.

    ROOT/NAME/              a kept episode: NAME.mcap and metadata.yaml, whose custom_data are the labels
    ROOT/open/NAME/         the one that is being recorded, with its labels in labels.json
    ROOT/discarded/NAME/    what the operator did not want, until somebody removes it

Everything heard is handed to the system with every `flush` and put on the disk with every `sync`, so the death of the
recorder costs what came since the last flush and the death of the machine what came since the last sync. An episode
appears under ROOT by a single rename. What a dead recorder left in ROOT/open, `recovery.recover` finishes.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, cast

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys.store import Typestore

from m2distill_policy.errors import UserError
from m2distill_policy.utils.files import sync, write_whole

OPEN, DISCARDED, LOCK, LABELS, METADATA = "open", "discarded", ".lock", "labels.json", "metadata.yaml"
SUCCESS, FAILURE, UNKNOWN = "true", "false", "unknown"  # values of the label `success`
BAG_VERSION: Literal[9] = 9  # of rosbag2's metadata: Jazzy's


class BagWriter:
    """A rosbag2 folder that is being written."""

    def __init__(self, folder: Path, topics: Mapping[str, str], types: Typestore):
        """`topics`: full name -> type."""
        self.folder = folder
        self.counts = dict.fromkeys(topics, 0)  # messages written, by topic
        self._writer = Writer(folder, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._storage = cast(Any, self._writer.storage)  # mcap's; rosbags declares what all formats have in common
        self._file = self._storage.bio
        self._topics = {name: self._writer.add_connection(name, kind, typestore=types) for name, kind in topics.items()}

    def write(self, topic: str, time_ns: int, message: bytes) -> None:
        self._writer.write(self._topics[topic], time_ns, message)
        self.counts[topic] += 1

    @property
    def messages(self) -> int:
        return sum(self.counts.values())

    def flush(self) -> None:
        """What was written survives this process."""
        if self._storage.chunk.bio.tell():
            self._storage.close_chunk()
        self._file.flush()

    def sync(self) -> None:
        """What was flushed survives the machine. From any thread."""
        os.fsync(self._file.fileno())

    def finish(self, labels: Mapping[str, str], target: Path) -> None:
        """Index, metadata and labels; then the folder appears at `target`, whole."""
        for name, value in labels.items():
            self._writer.set_custom_data(name, value)
        with self.dropped_on_refusal():
            self._writer.close()
        for path in self.folder.iterdir():
            sync(path)
        sync(self.folder)
        appear(self.folder, target)

    def abandon(self) -> None:
        """Nobody wants it: as much as the disk takes stays in the file."""
        with suppress(OSError):
            self.flush()
        self.drop()

    def drop(self) -> None:
        """The disk refuses: what is in the file stays, and nothing comes after what may be half a record."""
        with suppress(OSError):
            self._writer.abort()

    @contextmanager
    def dropped_on_refusal(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.drop()
            raise


class RecordedEpisode:
    """The open episode. It is over after `keep` or `discard`."""

    def __init__(self, root: Path, name: str, topics: Mapping[str, str], types: Typestore, labels: Mapping[str, str]):
        self.name, self._root = name, root
        self.labels = dict(labels)
        self.bag = BagWriter(root / OPEN / name, topics, types)
        self._labels_path = self.bag.folder / LABELS
        with self.bag.dropped_on_refusal():
            self.label()
            self.bag.flush()
            sync(self.bag.folder.parent)

    def label(self, **labels: str) -> None:
        self.labels |= labels
        write_whole(self._labels_path, json.dumps(self.labels).encode())

    def keep(self) -> Path:
        self.bag.finish(self.labels, self._root / self.name)
        return self._root / self.name

    def discard(self) -> Path:
        self.bag.abandon()
        target = self._root / DISCARDED / self.name
        move(self.bag.folder, target)
        return target


class Recordings:
    """A folder of episodes, which belongs to one process at a time."""

    def __init__(self, root: Path):
        """Raises UserError when another process records into or recovers the folder, or when it cannot be made."""
        self.root = root
        try:
            for folder in (root, root / OPEN, root / DISCARDED):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock = (root / LOCK).open("w")
        except OSError as error:
            raise UserError(f"{root} is no folder to record into ({error.strerror}); choose another") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UserError(
                f"a recorder or a recovery is at work in {root}; end it first, or choose another folder"
            ) from None

    def begin(self, topics: Mapping[str, str], types: Typestore, labels: Mapping[str, str]) -> RecordedEpisode:
        name = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
        return RecordedEpisode(self.root, name, topics, types, labels)

    def unfinished(self) -> Sequence[Path]:
        """What a recorder that died has left."""
        return sorted(path for path in (self.root / OPEN).iterdir() if path.is_dir())

    def free_bytes(self) -> int:
        """0 where the folder has gone."""
        try:
            return shutil.disk_usage(self.root).free
        except OSError:
            return 0

    def close(self) -> None:
        self._lock.close()

    def __enter__(self) -> "Recordings":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def appear(folder: Path, target: Path) -> None:
    """A whole bag, whose metadata holds the labels: until then nothing but their own file does."""
    for leftover in folder.glob(f"*{LABELS}*"):  # a full disk may have left a part of it, under a temporary name
        leftover.unlink()
    move(folder, target)


def move(folder: Path, target: Path) -> None:
    """Rename, and make the disk remember it."""
    folder.rename(target)
    sync(target.parent)
    sync(folder.parent)
