"""Recorded episodes on disk: standard rosbag2 folders with one mcap file each. No ROS here.

    ROOT/NAME/              a kept episode: NAME.mcap and metadata.yaml, whose custom_data are the labels
    ROOT/open/NAME/         the open episode, with its labels in labels.json
    ROOT/discarded/NAME/    episodes that the operator discarded, until somebody removes them

`flush` hands all messages to the operating system and `sync` to the disk. A crash of the recorder loses the messages
since the last flush, a crash of the machine those since the last sync. An episode appears under ROOT by a single
rename. `recovery.recover_episodes` finishes the episodes that a crashed recorder left in ROOT/open.
"""

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
from m2distill_policy.utils.files import fsync_path, lock, write_atomically
from m2distill_policy.utils.schema import with_labels

OPEN, DISCARDED, LOCK, LABELS, METADATA = "open", "discarded", ".lock", "labels.json", "metadata.yaml"
SUCCESS, FAILURE, UNKNOWN = "true", "false", "unknown"  # values of the label `success`
BAG_VERSION: Literal[9] = 9  # of rosbag2's metadata: Jazzy's


class BagWriter:
    """Writer of one rosbag2 folder."""

    def __init__(self, folder: Path, topics: Mapping[str, str], types: Typestore):
        """Create the folder. `topics` maps full names to types."""
        self.folder = folder
        self.counts = dict.fromkeys(topics, 0)  # messages written, by topic
        self._writer = Writer(folder, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._storage = cast(Any, self._writer.storage)  # mcap's writer; rosbags declares the common base class
        self._file = self._storage.bio
        self._topics = {name: self._writer.add_connection(name, kind, typestore=types) for name, kind in topics.items()}

    def write(self, topic: str, time_ns: int, message: bytes) -> None:
        """Append a serialized message."""
        self._writer.write(self._topics[topic], time_ns, message)
        self.counts[topic] += 1

    @property
    def messages(self) -> int:
        """Number of messages written."""
        return sum(self.counts.values())

    def flush(self) -> None:
        """Hand all messages to the operating system, so that they survive a crash of this process."""
        if self._storage.chunk.bio.tell():
            self._storage.close_chunk()
        self._file.flush()

    def sync(self) -> None:
        """Put all flushed messages on the disk, so that they survive a crash of the machine. Thread-safe."""
        os.fsync(self._file.fileno())

    def finish(self, labels: Mapping[str, str], target: Path) -> None:
        """Write index, metadata and labels, then rename the complete folder to `target`."""
        for name, value in labels.items():
            self._writer.set_custom_data(name, value)
        with self.abort_on_error():
            self._writer.close()
        for path in self.folder.iterdir():
            fsync_path(path)
        fsync_path(self.folder)
        publish_episode(self.folder, target)

    def close_unfinished(self) -> None:
        """Flush as much as the disk takes and close the file without index or metadata."""
        with suppress(OSError):
            self.flush()
        self.abort()

    def abort(self) -> None:
        """Close the file as it is after a disk error: nothing may follow a record that may be incomplete."""
        with suppress(OSError):
            self._writer.abort()

    @contextmanager
    def abort_on_error(self) -> Iterator[None]:
        """Abort the bag if the block raises OSError."""
        try:
            yield
        except OSError:
            self.abort()
            raise


class RecordedEpisode:
    """The open episode. `keep` and `discard` end it."""

    def __init__(self, root: Path, name: str, topics: Mapping[str, str], types: Typestore, labels: Mapping[str, str]):
        self.name, self._root = name, root
        self.labels = with_labels(labels)
        self.bag = BagWriter(root / OPEN / name, topics, types)
        self._labels_path = self.bag.folder / LABELS
        with self.bag.abort_on_error():
            self.label()
            self.bag.flush()
            fsync_path(self.bag.folder.parent)

    def label(self, **labels: str) -> None:
        """Add labels, or replace them."""
        self.labels |= labels
        write_atomically(self._labels_path, json.dumps(self.labels).encode())

    def keep(self) -> Path:
        """Finish the episode and return its folder."""
        self.bag.finish(self.labels, self._root / self.name)
        return self._root / self.name

    def discard(self) -> Path:
        """Move the episode to the discarded ones and return its folder."""
        self.bag.close_unfinished()
        target = self._root / DISCARDED / self.name
        move_durably(self.bag.folder, target)
        return target


class Recordings:
    """Folder of episodes, locked by one process at a time. A context manager."""

    def __init__(self, root: Path):
        """Create the folder if it is missing, and lock it.

        Raises:
            UserError: another process has locked the folder, or it cannot be created.
        """
        self.root = root
        try:
            for folder in (root, root / OPEN, root / DISCARDED):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock = (root / LOCK).open("w")
        except OSError as error:
            raise UserError(f"cannot record into {root} ({error.strerror}); choose another folder") from None
        if not lock(self._lock.fileno(), root):
            self._lock.close()
            raise UserError(f"another recorder or recovery uses {root}; stop it first, or choose another folder")

    def begin(self, topics: Mapping[str, str], types: Typestore, labels: Mapping[str, str]) -> RecordedEpisode:
        """Start an episode, named by the time in UTC."""
        name = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S-%f")
        return RecordedEpisode(self.root, name, topics, types, labels)

    def unfinished(self) -> Sequence[Path]:
        """Return the folders that a crashed recorder left open, sorted."""
        return sorted(path for path in (self.root / OPEN).iterdir() if path.is_dir())

    def free_bytes(self) -> int:
        """Return the free space of the disk; 0 if the folder no longer exists."""
        try:
            return shutil.disk_usage(self.root).free
        except OSError:
            return 0

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()

    def __enter__(self) -> "Recordings":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def publish_episode(folder: Path, target: Path) -> None:
    """Move a complete bag to its final path, without the labels file, whose content is in the metadata by now."""
    for leftover in folder.glob(f"*{LABELS}*"):  # a full disk may leave a part of it under a temporary name
        leftover.unlink()
    move_durably(folder, target)


def move_durably(folder: Path, target: Path) -> None:
    """Rename a folder and flush the rename to the disk."""
    folder.rename(target)
    fsync_path(target.parent)
    fsync_path(folder.parent)
