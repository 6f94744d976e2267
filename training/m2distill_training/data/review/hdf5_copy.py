"""Copy of demos from HDF5 files into a new one: every dataset and attribute, of all steps or of some."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from m2distill_policy.errors import DataError
from m2distill_policy.utils.files import new_file
from m2distill_training.data.libero.hdf5_checks import member, reading
from m2distill_training.data.libero.reader import SPEC_ATTRIBUTE

AGAIN = "copy or collect it again"
SHARED = (
    "obs_after_action",
    "macros_image_convention",
    SPEC_ATTRIBUTE,
)  # attributes that files of one set have in common
ENDS = ("dones", "rewards")  # datasets whose last value marks the end of an episode


@dataclass(frozen=True)
class Part:
    """Demos of one file, in order, and the first and last step of those that are not copied whole."""

    path: Path
    names: Sequence[str]
    keep: dict[str, tuple[int, int]] = field(default_factory=dict)


def copy_demos(out: Path, parts: Sequence[Part], instruction: str | None = None) -> int:
    """Write the demos of the parts as `out`, completely or not at all; return their number.

    They are numbered from demo_0 on, and the attribute `source` of each names where it is from. `instruction` replaces
    that of the first file. Raises DataError for damaged files, or if their conventions or image sizes differ.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_file(out) as disk, h5py.File(disk, "w") as file, ExitStack() as stack:
        new = file.create_group("data")
        count = total = 0
        shapes: dict[str, tuple] = {}
        for part in parts:
            source = stack.enter_context(h5py.File(part.path, "r", locking=False))
            with reading(f"{part.path}", AGAIN):
                data = source["data"]
                _check_shared(part.path, data, parts[0].path, new, first=part is parts[0])
                for name in part.names:
                    group = new.create_group(f"demo_{count}")
                    steps = len(data[name]["actions"])
                    first, last = part.keep.get(name, (0, steps - 1))
                    _copy(data[name], group, slice(first, last + 1), steps)
                    _finish(data[name], group, first, steps - 1 - last)
                    _check_images(part.path, name, group, shapes)
                    group.attrs["num_samples"] = last + 1 - first
                    group.attrs["source"] = f"{part.path.name}: {name}, steps {first} to {last} of {steps}"
                    count, total = count + 1, total + last + 1 - first
        new.attrs["num_demos"], new.attrs["total"] = count, total
        if instruction is not None:
            problem = json.loads(new.attrs["problem_info"])
            new.attrs["problem_info"] = json.dumps({**problem, "language_instruction": instruction})
    return count


def _check_shared(path: Path, data: h5py.Group, first_path: Path, new: h5py.Group, first: bool) -> None:
    if first:
        for name, value in data.attrs.items():
            new.attrs[name] = value
    for name in SHARED:
        ours, its = new.attrs.get(name), data.attrs.get(name)
        if ours != its:
            raise DataError(
                f"{path}: {name} is {its}, in {first_path} it is {ours}; export and import one of them again"
            )


def _copy(group: h5py.Group, new: h5py.Group, rows: slice, steps: int) -> None:
    """Copy what the file itself holds below `group`; of a dataset with one row per step, only `rows`."""
    new.attrs.update(dict(group.attrs.items()))
    for name in group:
        found = member(group, name)
        if isinstance(found, h5py.Group):
            _copy(found, new.create_group(name), rows, steps)
        elif isinstance(found, h5py.Dataset):
            of_steps = found.ndim > 0 and len(found) == steps
            values = found[rows] if of_steps else found[()]
            options = {} if found.ndim == 0 else {"compression": found.compression, "chunks": found.chunks}
            if found.chunks and of_steps:
                options["chunks"] = (min(found.chunks[0], len(values)), *found.chunks[1:])
            copied = new.create_dataset(name, data=values, dtype=found.dtype, **options)
            copied.attrs.update(dict(found.attrs.items()))


def _finish(group: h5py.Group, new: h5py.Group, cut_first: int, cut_last: int) -> None:
    """Restore what depends on the first and the last step of a shortened demo."""
    if cut_first and "init_state" in new.attrs and isinstance(new.get("states"), h5py.Dataset):
        new.attrs["init_state"] = new["states"][0]
    for name in ENDS if cut_last else ():
        if isinstance(new.get(name), h5py.Dataset):
            new[name][-1] = group[name][-1]


def _check_images(path: Path, name: str, group: h5py.Group, shapes: dict[str, tuple]) -> None:
    for key, shape in _image_shapes(group.get("obs")):
        if shapes.setdefault(key, shape) != shape:
            raise DataError(
                f"{path}: images of {name}, {key}, are {shape}, those before it {shapes[key]} (height, width, "
                "channels); merge demos of one size"
            )


def _image_shapes(observations: h5py.Group | None) -> Iterator[tuple[str, tuple]]:
    for key, dataset in (observations or {}).items():
        if isinstance(dataset, h5py.Dataset) and dataset.ndim == 4 and dataset.dtype == np.uint8:
            yield key, dataset.shape[1:]
