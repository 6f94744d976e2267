"""Settings of the C allocator, so that it keeps the memory that a gradient step frees for the next one.

By default glibc returns every block of some megabytes to the system and receives it back filled with zeros, page by
page. That takes four fifths of the time to convert a batch to floating point, and a tenth of a training step on a CPU.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # glibc's malloc.h
NEVER = -1
DEFAULT_MMAP_MAX = 65536
LARGEST_DYNAMIC = 32 << 20  # bytes; glibc's own thresholds reach it in a process that frees large blocks


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory in the whole process until the context ends; no effect without glibc's mallopt."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_MAX, DEFAULT_MMAP_MAX)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_DYNAMIC)
        libc.mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_DYNAMIC)
        libc.malloc_trim(0)
