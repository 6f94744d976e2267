"""Import of a LeRobot dataset as LIBERO-format files, one per task (layout.py).

Columns are found by the names in info.json, not by their place. Numbers with other names or units, another rate, and
versions other than 3.0 are rejected.
"""

import json
import math
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from m2distill_policy.cameras import CAMERAS, Camera
from m2distill_policy.errors import DataError, MessageError, UserError
from m2distill_policy.observations.image_decoding import MAX_PIXELS, decode_compressed
from m2distill_training.data.actions import clip_rounding
from m2distill_training.data.lerobot import layout
from m2distill_training.data.lerobot.layout import ACTION, STATE
from m2distill_training.data.libero.reader import Demo
from m2distill_training.data.libero.writer import NewDemo, file_names, write_demos
from m2distill_training.data.videos import read_frames

TIME_TOLERANCE_S = 1e-4  # LeRobot's
FIELD = re.compile(r"\{(\w+)(?::0(\d)d)?\}")  # of a path in info.json
MANY_ROWS, MOST_ROWS_PER_BYTE = 1_000_000, 10  # a table beyond both would only fill the memory
# An episode is in memory whole. With the copy of one camera's images that writing makes, this is what a machine of
# 16 GB takes: at 20 Hz almost four minutes of two cameras of 640x480 px, or 18 of 256x256.
MOST_IMAGES_GIB = 8


def _is_texts(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type))


INTEGER, NUMBER, TEXTS, ANY = pa.types.is_integer, pa.types.is_floating, _is_texts, lambda kind: True  # of columns


def import_lerobot(source: Path, out: Path, cameras: Sequence[Camera] = CAMERAS) -> list[Path]:
    """Write the dataset folder `source` as one file per task in the folder `out`.

    `cameras` name the features with images. Raises DataError; files of earlier tasks then remain, each complete.
    """
    dataset = LerobotDataset(source, {camera.name: camera.lerobot_key for camera in cameras})
    paths = {instruction: out / name for instruction, name in file_names(dataset.tasks()).items()}
    for path in paths.values():
        if path.exists():
            raise UserError(f"{path} exists; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    for instruction, path in paths.items():
        write_demos(path, instruction, (NewDemo(demo, {}, {}) for demo in dataset.demos(instruction)), cameras)
    return list(paths.values())


@dataclass(frozen=True)
class _Camera:
    feature: str
    kind: str  # "video" or "image"
    shape: list[int]  # height, width and 3 in any order: datasets agree neither on one nor on how to name it


@dataclass(frozen=True)
class _Features:
    """Where our numbers are in a dataset's features."""

    state: list[int]  # columns of STATE, in the spec's order
    action: list[int]
    cameras: dict[str, _Camera]


class LerobotDataset:
    """A dataset folder, open for reading; `cameras` are {name: feature}. Raises DataError."""

    def __init__(self, root: Path, cameras: dict[str, str]):
        self._root = root
        self._info = _read_info(root / layout.INFO)
        self._features = _find_features(root / layout.INFO, self._info["features"], cameras)
        self._instructions = _read_instructions(root / layout.TASKS)
        self._episodes = self._read_episodes()
        self._open: tuple[Path, pa.Table] | None = None  # the data file read last; episodes follow each other in it

    def tasks(self) -> list[str]:
        return list(dict.fromkeys(episode["tasks"][0] for episode in self._episodes))

    def demos(self, instruction: str) -> Iterator[Demo]:
        for episode in self._episodes:
            if episode["tasks"][0] == instruction:
                yield self._read_demo(episode)

    def contents(self) -> list[tuple[int, str, int]]:
        """Return the number, instruction and number of steps of every episode."""
        return [(episode["episode_index"], episode["tasks"][0], episode["length"]) for episode in self._episodes]

    def all_demos(self) -> Iterator[tuple[str, Demo]]:
        """Yield the instruction and the demo of every episode, in the order of `contents`."""
        for episode in self._episodes:
            yield episode["tasks"][0], self._read_demo(episode)

    def _read_episodes(self) -> list[dict]:
        folder = self._root / "meta/episodes"
        videos = [camera.feature for camera in self._features.cameras.values() if camera.kind == "video"]
        required = {
            "episode_index": INTEGER,
            "tasks": TEXTS,
            "length": INTEGER,
            "data/chunk_index": INTEGER,
            "data/file_index": INTEGER,
            **{
                f"videos/{feature}/{name}": kind
                for feature in videos
                for name, kind in (("chunk_index", INTEGER), ("file_index", INTEGER), ("from_timestamp", NUMBER))
            },
        }
        tables = [(path, _read_table(path, required)) for path in sorted(folder.glob("*/*.parquet"))]
        episodes = sorted(
            (episode for _, table in tables for episode in table.to_pylist()),
            key=lambda episode: episode["episode_index"],
        )
        if len(episodes) != self._info["total_episodes"]:
            raise DataError(
                f"{folder} lists {len(episodes)} episodes, info.json {self._info['total_episodes']}; copy "
                "the dataset again"
            )
        if not episodes:
            raise DataError(f"{self._root} holds no episode")
        for episode in episodes:
            if len(episode["tasks"]) != 1:
                raise DataError(
                    f"{folder}: episode {episode['episode_index']} has the instructions "
                    f"{episode['tasks']}, expected one; split it"
                )
        return episodes

    def _read_demo(self, episode: dict) -> Demo:
        name, steps = f"episode {episode['episode_index']}", episode["length"]
        path = self._path("data_path", chunk_index=episode["data/chunk_index"], file_index=episode["data/file_index"])
        table = self._data(path)
        rows = table.filter(pa.compute.equal(table["episode_index"], episode["episode_index"]))
        if len(rows) != steps or steps == 0:
            raise DataError(f"{path} has {len(rows)} rows of {name}, expected {max(steps, 1)}; copy the dataset again")
        where = f"{path}: {name}"
        asked_gib = steps * sum(math.prod(camera.shape) for camera in self._features.cameras.values()) / 2**30
        if asked_gib > MOST_IMAGES_GIB:
            raise DataError(
                f"{where} has {steps} steps, whose images would take {asked_gib:.3g} GiB, allowed "
                f"{MOST_IMAGES_GIB}; split it, or make its images smaller"
            )
        times = np.arange(steps) / self._info["fps"]
        if np.abs(_numbers(rows, "timestamp", 1, where)[:, 0] - times).max() > TIME_TOLERANCE_S:
            raise DataError(
                f"{where} has timestamps that are not 0, 1/{self._info['fps']}, ... s; record it at a steady rate"
            )
        instructions = {self._instructions.get(index) for index in rows["task_index"].to_pylist()}
        if instructions != {episode["tasks"][0]}:
            raise DataError(
                f"{where} has rows of the tasks {sorted(map(str, instructions))}, expected "
                f"{episode['tasks'][0]!r} alone; split it"
            )
        state = _numbers(rows, STATE, len(self._features.state), where)[:, self._features.state]
        action = _numbers(rows, ACTION, len(self._features.action), where)[:, self._features.action]
        action = clip_rounding(action, f"{where}: {ACTION}", f"scale it to {layout.units()[ACTION]}")
        return Demo(
            name,
            {name: self._images(camera, episode, rows, where) for name, camera in self._features.cameras.items()},
            *layout.from_state(state),
            action,
        )

    def _images(self, camera: _Camera, episode: dict, rows: pa.Table, where: str) -> np.ndarray:
        feature = camera.feature
        if camera.kind == "image":
            images = _decoded(rows[feature], f"{where}: {feature}")
        else:
            path = self._path(
                "video_path",
                video_key=feature,
                chunk_index=episode[f"videos/{feature}/chunk_index"],
                file_index=episode[f"videos/{feature}/file_index"],
            )
            images = read_frames(path, episode[f"videos/{feature}/from_timestamp"], len(rows), self._info["fps"])
        with closing(images):
            return _stacked(images, len(rows), camera, where)

    def _path(self, template: str, **numbers) -> Path:
        def written(field: re.Match) -> str:
            value = numbers[field[1]]
            return value if isinstance(value, str) else f"{value:0{field[2] or 0}d}"

        text: Any = self._info.get(template)
        try:
            path = PurePath(FIELD.sub(written, text))
            if "{" in str(path) or path.is_absolute() or ".." in path.parts:
                raise ValueError
            (self._root / path).stat()
        except FileNotFoundError:
            raise DataError(f"{self._root / path}: no such file; copy the dataset again, with its videos") from None
        except (KeyError, ValueError, TypeError, OSError):
            raise DataError(
                f"{self._root / layout.INFO}: {template} is {text!r:.80}, expected a path "
                f"with {{{'} and {'.join(numbers)}}}, below the dataset"
            ) from None
        return self._root / path

    def _data(self, path: Path) -> pa.Table:
        if self._open is None or self._open[0] != path:
            images = [camera.feature for camera in self._features.cameras.values() if camera.kind == "image"]
            needed = {"episode_index": INTEGER, "task_index": INTEGER, "timestamp": ANY, STATE: ANY, ACTION: ANY}
            self._open = path, _read_table(path, needed | dict.fromkeys(images, ANY))
        return self._open[1]


def _read_info(path: Path) -> dict:
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; name the folder of a LeRobot dataset, the one that holds meta/, data/ and videos/"
        )
    try:
        info = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); copy the dataset again") from None
    version = info.get("codebase_version") if isinstance(info, dict) else None
    if version != layout.VERSION:
        raise DataError(
            f"{path}: codebase_version is {version!r}, expected {layout.VERSION!r}; convert the dataset with "
            "LeRobot's convert_dataset_v21_to_v30"
        )
    missing = [key for key in ("fps", "features", "total_episodes", "data_path") if key not in info]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}, has {', '.join(info)}; copy the dataset again")
    if not isinstance(info["features"], dict) or not all(isinstance(f, dict) for f in info["features"].values()):
        raise DataError(f"{path}: features is {info['features']!r:.80}, expected objects; copy the dataset again")
    if info["fps"] != layout.SPEC.rate_hz:
        raise DataError(
            f"{path}: fps is {info['fps']}, expected {layout.SPEC.rate_hz:g}, the policy's rate; resample the dataset"
        )
    return info


def _find_features(path: Path, features: dict, cameras: dict[str, str]) -> _Features:
    required = [STATE, ACTION, *cameras.values()]
    missing = [key for key in required if key not in features]
    if missing:
        there = ", ".join(
            f"{key} {feature.get('shape')}" for key, feature in features.items() if key not in layout.COUNTERS
        )
        raise DataError(
            f"{path} has no feature {' and no '.join(missing)}; there are: {there}; name the features in a "
            "file for --cameras, as lerobot_key, or record what is missing"
        )
    found = {}
    for camera, key in cameras.items():
        feature = features[key]
        shape, kind = feature.get("shape"), feature.get("dtype")
        if (
            kind not in ("video", "image")
            or not isinstance(shape, list)
            or len(shape) != 3
            or 3 not in shape
            or not all(isinstance(side, int) and 0 < side <= MAX_PIXELS for side in shape)
        ):
            raise DataError(
                f"{path}: {key} is {kind} of shape {shape}, expected video or image of shape [height, width, 3]"
            )
        found[camera] = _Camera(key, kind, shape)
    return _Features(
        _columns(path, STATE, features[STATE], layout.state_names()),
        _columns(path, ACTION, features[ACTION], layout.ACTION_NAMES),
        found,
    )


def _columns(path: Path, key: str, feature: dict, required: tuple[str, ...]) -> list[int]:
    """Return the place of each of the `required` names in the feature."""
    if feature.get("shape") != [len(required)]:
        raise DataError(
            f"{path}: {key} has shape {feature.get('shape')} and names {feature.get('names')}, expected "
            f"[{len(required)}]: {', '.join(required)}"
        )
    names = feature.get("names")
    if isinstance(names, dict):  # LeRobot's older way: {"motors": [...]}
        names = [name for group in names.values() for name in (group if isinstance(group, list) else [group])]
    if not isinstance(names, list) or sorted(map(str, names)) != sorted(required):
        raise DataError(
            f"{path}: {key} has the names {names}, expected {list(required)} in any order; if that is what "
            "it holds, write these names there"
        )
    info, expected = feature.get("info"), [layout.units()[key][required.index(name)] for name in names]
    units = info.get("units") if isinstance(info, dict) else None  # LeRobot does not state them
    if units not in (None, expected):
        raise DataError(f"{path}: {key} is in {units}, expected {expected}; convert it")
    return [names.index(name) for name in required]


def _read_instructions(path: Path) -> dict[int, str]:
    table = _read_table(path, {"task_index": INTEGER})
    texts = [
        name
        for name in table.column_names
        if pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type)
    ]
    if len(texts) != 1:
        raise DataError(f"{path} has the columns {table.column_names}, expected task_index and the instructions")
    return dict(zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True))


def _read_table(path: Path, needed: dict[str, Callable[[pa.DataType], bool]]) -> pa.Table:
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


def _numbers(rows: pa.Table, key: str, width: int, where: str) -> np.ndarray:
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


def _decoded(cells: pa.ChunkedArray, where: str) -> Generator[np.ndarray]:
    """Yield (H, W, 3) uint8 RGB of the encoded images in a column."""
    for cell in cells:
        try:
            image = decode_compressed(cell.as_py()["bytes"])
        except (MessageError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where} holds what is no image ({error}); copy the dataset again") from None
        yield image


def _stacked(images: Iterator[np.ndarray], steps: int, camera: _Camera, where: str) -> np.ndarray:
    """Return (T, H, W, 3). Each image is checked before the next is decoded: a small file can hold large ones."""
    fits = {order for order in permutations(camera.shape) if order[-1] == 3}
    for step, image in enumerate(images):
        if image.shape not in fits:
            raise DataError(
                f"{where}: image {step} of {camera.feature} has shape {list(image.shape)}, info.json "
                f"states {camera.shape}; write there what is right, or copy the dataset again"
            )
        if step == 0:
            fits, frames = {image.shape}, np.empty((steps, *image.shape), np.uint8)
        frames[step] = image
    return frames
