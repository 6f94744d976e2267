"""Parquet tables and images of a LeRobot dataset, checked while they are read."""

from collections.abc import Callable, Generator, Iterator
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from m2distill_policy.errors import DataError, MessageError
from m2distill_policy.observations.image_decoding import decode_compressed

MANY_ROWS, MOST_ROWS_PER_BYTE = 1_000_000, 10  # a table beyond both would only fill the memory


def _is_texts(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type))


INTEGER, NUMBER, TEXTS, ANY = pa.types.is_integer, pa.types.is_floating, _is_texts, lambda kind: True  # of columns


def read_table(path: Path, needed: dict[str, Callable[[pa.DataType], bool]]) -> pa.Table:
    """Return a parquet file that has the columns `needed` with these types.

    Other columns are read only for tasks, whose names are free.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; copy the dataset again")
    try:
        there = pq.read_schema(path).names
        missing = [name for name in needed if name not in there]
        if missing:
            raise DataError(f"{path} has no column {' and no '.join(missing)}; there are: {', '.join(there)}")
        rows, size = pq.read_metadata(path).num_rows, path.stat().st_size
        if rows > max(MANY_ROWS, MOST_ROWS_PER_BYTE * size):
            raise DataError(f"{path} has {rows} rows in {size} bytes, which is no recording; copy the dataset again")
        table = pq.read_table(path, columns=None if path.name == "tasks.parquet" else list(needed))
        table.validate(full=True)
        if wrong := [f"{name} {table[name].type}" for name, fits in needed.items() if not fits(table[name].type)]:
            raise DataError(f"{path} has columns of other types than LeRobot's: {', '.join(wrong)}")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} is not a readable parquet file ({error}); copy the dataset again") from None
    if empty := [name for name in table.column_names if table[name].null_count]:
        raise DataError(f"{path} has rows without {', '.join(empty)}; copy the dataset again")
    return table


def read_numbers(rows: pa.Table, key: str, width: int, where: str) -> np.ndarray:
    """Return (T, width) float32, finite."""
    column = rows[key].combine_chunks()
    try:
        if pa.types.is_nested(column.type):
            lengths = set(pa.compute.list_value_length(column).to_pylist())
            column = column.flatten() if lengths == {width} else None
        values = np.asarray(column.to_numpy(zero_copy_only=False), np.float32).reshape(len(rows), width)
    except (AttributeError, ValueError, TypeError, pa.ArrowException):
        raise DataError(f"{where}: {key} is {rows[key].type}, expected {width} numbers in every row") from None
    if len(bad := np.argwhere(~np.isfinite(values))):
        raise DataError(f"{where}: {key} is not finite in row {bad[0][0]}; drop the episode")
    return values


def decoded_images(cells: pa.ChunkedArray, where: str) -> Generator[np.ndarray]:
    """Yield (H, W, 3) uint8 RGB of the encoded images in a column."""
    for cell in cells:
        try:
            image = decode_compressed(cell.as_py()["bytes"])
        except (MessageError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where} holds what is no image ({error}); copy the dataset again") from None
        yield image


def stacked_images(images: Iterator[np.ndarray], steps: int, feature: str, shape: list[int], where: str) -> np.ndarray:
    """Return (T, H, W, 3). Each image is checked before the next is decoded: a small file can hold large ones."""
    fits = {order for order in permutations(shape) if order[-1] == 3}
    for step, image in enumerate(images):
        if image.shape not in fits:
            raise DataError(
                f"{where}: image {step} of {feature} has shape {list(image.shape)}, info.json "
                f"states {shape}; write there what is right, or copy the dataset again"
            )
        if step == 0:
            fits, frames = {image.shape}, np.empty((steps, *image.shape), np.uint8)
        frames[step] = image
    return frames
