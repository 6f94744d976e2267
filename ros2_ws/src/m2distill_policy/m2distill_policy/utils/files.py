"""Durable files and folders: content under its final name is complete and on the disk, also after a crash."""

import errno
import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and flush it to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file. Readers see the old content or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """Flush a temporary file to the disk and rename it to its final path."""
    fsync_path(temporary)
    temporary.replace(path)
    fsync_path(path.parent)


def publish_folder(temporary: Path, folder: Path) -> None:
    """Flush a temporary folder beside `folder` to the disk and rename it.

    If another process has created `folder` meanwhile, that folder is kept.
    """
    for path in [*temporary.rglob("*"), temporary]:
        fsync_path(path)
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    fsync_path(folder.parent)


def fsync_path(path: Path) -> None:
    """Flush the content of a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # CIFS and VirtualBox cannot flush a folder
            raise
    finally:
        os.close(descriptor)
