"""Checks of HDF5 files of unknown origin: damage, links, and unpacked size.

A file must not lead to others (external links, external and virtual datasets). It must not unpack to a size far beyond
what it stores: such datasets would fill the memory.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import h5py

from m2distill_policy.errors import DataError

DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
)  # as h5py raises them; RecursionError is a RuntimeError
SMALL_BYTES, MOST_PACKED = 1 << 26, 200  # a dataset beyond both the size and the ratio is no recording


@contextmanager
def reading(what: str, next_step: str) -> Iterator[None]:
    """Turn damage into a DataError about `what`."""
    try:
        yield
    except DAMAGE as error:
        raise DataError(f"{what} is not readable ({error}); {next_step}") from None


def member(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset | None:
    """Return what the file itself holds at `path` below `group`; None if nothing, or a link.

    Raises DataError for a dataset that cannot be read safely.
    """
    found: h5py.Group | h5py.Dataset | None = group
    for name in path.split("/"):
        if not isinstance(found, h5py.Group) or not isinstance(found.get(name, getlink=True), h5py.HardLink):
            return None
        found = found.get(name)
    if isinstance(found, h5py.Dataset):
        _check(found)
    return found


def _check(dataset: h5py.Dataset) -> None:
    where = f"{dataset.file.filename}: {dataset.name}"
    if dataset.is_virtual or dataset.external:
        raise DataError(f"{where} is stored in other files; copy it into this one, as h5repack does")
    if dataset.shape is None:
        raise DataError(f"{where} is empty; collect the demo again or drop it from the file")
    unpacked = max(math.prod(dataset.shape), math.prod(dataset.chunks or ())) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    if unpacked > max(SMALL_BYTES, MOST_PACKED * stored):
        raise DataError(
            f"{where} has shape {dataset.shape} and would take {unpacked / 1e9:.3g} GB, of which "
            f"{stored} bytes are stored; drop the demo from the file"
        )
