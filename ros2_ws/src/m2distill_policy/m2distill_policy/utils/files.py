"""Durable files and folders: content under its final name is complete and on the disk, also after a crash."""

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from m2distill_policy.errors import UserError
from m2distill_policy.utils.disk_file import DiskFile

# Of file systems without flock, such as Lustre or NFS; EBADF is NFS's answer for a folder.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
HERE, EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
NEW_S = 5.0  # age below which an unlocked temporary file is not removed: its process may be about to lock it


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and flush it to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file. Readers see the old content or the new content, never a part."""
    with new_file(path) as file:
        file.write(content)


def temporary_path(path: Path) -> Path:
    """Return a hidden path beside `path` that no other process uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")


@contextmanager
def new_file(path: Path) -> Iterator[DiskFile]:
    """Yield a file that becomes `path` at the end, completely or not at all, for libraries that crash on a full disk.

    What killed processes left of earlier attempts is removed.

    Raises:
        OSError: the disk rejected a part of the content, whatever the block has raised.
    """
    _sweep(path)
    temporary = temporary_path(path)
    with _named(path):
        file = DiskFile(temporary)
        try:
            try:
                lock(file.fileno(), path, warn=False)
                yield file
            finally:
                file.close()  # raises the error of the disk, which precedes those that follow from it
            publish(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`, to be renamed in the block; otherwise it is removed at the end.

    What killed processes left of earlier attempts is removed.
    """
    with _named(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        temporary = temporary_path(folder)
        temporary.mkdir()
        try:
            descriptor = os.open(temporary, os.O_RDONLY)
            try:
                lock(descriptor, folder, warn=False)
                yield temporary
            finally:
                os.close(descriptor)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def folder_in_use(folder: Path) -> Iterator[None]:
    """Create `folder` if needed and hold a lock on it. Raises UserError if another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not lock(descriptor, folder):
            raise UserError(f"another process writes to {folder}; wait for it, or choose another --out")
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let errors of the disk state `path`; those of numpy have neither a number nor a file."""
    try:
        yield
    except OSError as error:
        if error.errno is None and "requested and" in str(error):  # numpy wrote a part of an array
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        if error.errno is not None and (error.filename is None or str(error.filename).endswith(".tmp")):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def lock(descriptor: int, path: Path, warn: bool = True) -> bool:
    """Lock an open file or folder until it is closed, also by a crash. Return False if another process has locked it.

    On a file system without locks a warning is printed unless `warn` is false, and the result is True.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        if warn:
            print(
                f"m2distill: warning: the file system of {path if path.is_dir() else path.parent} has no locks "
                f"({error.strerror}); make sure that no other process writes there",
                file=sys.stderr,
            )
    return True


def reserve(path: Path) -> None:
    """Allocate disk space for the whole length of a file, which may be sparse.

    Writing to a mapped sparse file kills the process on a full disk.

    Raises:
        OSError: the disk has too little space.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, max(1, os.fstat(descriptor).st_size))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # the file system cannot allocate
            raise
        space = os.fstatvfs(descriptor)
        if space.f_bavail * space.f_frsize < os.fstat(descriptor).st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    finally:
        os.close(descriptor)


def publish(temporary: Path, path: Path) -> None:
    """Flush a temporary file to the disk and rename it to its final path."""
    fsync_path(temporary)
    temporary.replace(path)
    fsync_path(path.parent)


def publish_folder(temporary: Path, folder: Path) -> None:
    """Flush a temporary folder beside `folder` to the disk and rename it.

    If another process has created `folder` meanwhile, that folder is kept.
    """
    flush_folder(temporary)
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    fsync_path(folder.parent)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step. Return False on a system or a file system that cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0:
        return True
    if (code := ctypes.get_errno()) in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def flush_folder(folder: Path) -> None:
    """Flush all files and names below a folder to the disk."""
    for path in [*folder.rglob("*"), folder]:
        fsync_path(path)


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


def _sweep(path: Path) -> None:
    """Remove temporary files and folders of `path` whose process no longer runs."""
    begin = f".{path.name}."
    with suppress(OSError):
        for leftover in [p for p in path.parent.iterdir() if p.name.startswith(begin) and p.name.endswith(".tmp")]:
            with suppress(OSError):
                _remove_unlocked(leftover)


def _remove_unlocked(leftover: Path) -> None:
    descriptor = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if time.time() - os.fstat(descriptor).st_mtime < NEW_S:
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: in use, or nobody can know
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
