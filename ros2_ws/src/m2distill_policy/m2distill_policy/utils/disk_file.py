"""File for libraries that crash when the disk rejects a write, as libhdf5 does.

A rejected write is kept in memory, so that the library sees what it wrote and ends in order. `close` raises the error.
"""

import io
import os
from pathlib import Path


class DiskFile(io.RawIOBase):
    """New file at `path`, open for reading and writing."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._position = 0
        self._error: OSError | None = None
        self._rejected: list[tuple[int, bytes]] = []  # offset and content of the writes that are not on the disk

    def check(self) -> None:
        """Raise the error of the first write that the disk rejected."""
        if self._error is not None:
            raise self._error

    def fileno(self) -> int:
        return self._descriptor

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size()}[whence]
        return self._position

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        if self._error is None:
            try:
                os.ftruncate(self._descriptor, size)
            except OSError as error:
                self._error = error
        return size

    def write(self, content) -> int:
        view = memoryview(content).cast("B")
        done = 0
        try:
            while self._error is None and done < len(view):
                done += os.pwrite(self._descriptor, view[done:], self._position + done)
        except OSError as error:
            self._error = error
        if done < len(view):
            self._rejected.append((self._position + done, bytes(view[done:])))
        self._position += len(view)
        return len(view)

    def readinto(self, buffer) -> int:
        view = memoryview(buffer).cast("B")
        begin = self._position
        length = max(0, min(len(view), self._size() - begin))
        view[:length] = bytes(length)
        found = os.pread(self._descriptor, length, begin)
        view[: len(found)] = found
        for offset, content in self._rejected:
            low, high = max(offset, begin), min(offset + len(content), begin + length)
            if low < high:
                view[low - begin : high - begin] = content[low - offset : high - offset]
        self._position += length
        return length

    def close(self) -> None:
        """Close the file. Raises the error of the first write that the disk rejected."""
        if not self.closed:
            super().close()
            os.close(self._descriptor)
            self.check()

    def _size(self) -> int:
        return max([os.fstat(self._descriptor).st_size, *(at + len(content) for at, content in self._rejected)])
