"""Files and folders that survive a crash: what is written under its final name is whole and on the disk."""

import errno
import os
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, content: bytes) -> None:
    """Readers see the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """What was written under a temporary name appears under its final one."""
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def publish_folder(temporary: Path, folder: Path) -> None:
    """What was written into a folder beside it appears as `folder`. One that another process made meanwhile stays."""
    for path in [*temporary.rglob("*"), temporary]:
        sync(path)
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    sync(folder.parent)


def sync(path: Path) -> None:
    """The content of a file, or the names in a folder, are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # CIFS and VirtualBox cannot flush a folder
            raise
    finally:
        os.close(descriptor)
