"""HDF5 files of unknown origin: damage, and what a file may not ask for.

A file may not lead to others (external links, external and virtual datasets), nor grow beyond all measure when it is
unpacked: datasets of which little or nothing is stored would fill the memory.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import h5py

from m2distill_policy.errors import DataError

DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)  # as h5py tells it; RecursionError is the second
SMALL_BYTES, MOST_PACKED = 1 << 26, 200  # a dataset beyond both, unpacked and by ratio, is no recording


@contextmanager
def reading(what: str, next_step: str) -> Iterator[None]:
    """Damage becomes a DataError about `what`."""
    try:
        yield
    except DAMAGE as error:
        raise DataError(f"{what} is not readable ({error}); {next_step}") from None


def member(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset | None:
    """What the file itself holds at `path` below `group`; None for nothing, and for links. Raises DataError for a
    dataset that cannot be read in good faith."""
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
