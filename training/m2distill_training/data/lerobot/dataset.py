"""Reader of a LeRobot dataset's episodes, in the formats 3.0 and 2.1.

Format 2.1 has one file of rows and one video per episode, and lists of tasks and episodes as JSON lines. Format 3.0 has
several episodes per file, and these lists as tables. Columns are found by the names in info.json, not by their place.
"""

import json
import math
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from m2distill_policy.errors import DataError
from m2distill_policy.observations.image_decoding import MAX_PIXELS
from m2distill_training.data.actions import clip_rounding
from m2distill_training.data.lerobot import layout
from m2distill_training.data.lerobot.layout import ACTION
from m2distill_training.data.lerobot.layouts import M2DISTILL, Layout, check_gripper, find_layout, upright
from m2distill_training.data.lerobot.tables import (
    ANY,
    INTEGER,
    NUMBER,
    TEXTS,
    decoded_images,
    read_numbers,
    read_table,
    stacked_images,
)
from m2distill_training.data.libero.reader import Demo
from m2distill_training.data.videos import read_frames
from m2distill_training.utils.schemas import fits, is_count

OLDER = "v2.1"
TIME_TOLERANCE_S = 1e-4  # LeRobot's
FIELD = re.compile(r"\{(\w+)(?::0(\d)d)?\}")  # of a path in info.json
# An episode is in memory whole. With the copy of one camera's images that writing makes, this is what a machine of
# 16 GB takes: at 20 Hz almost four minutes of two cameras of 640x480 px, or 18 of 256x256.
MOST_IMAGES_GIB = 8


@dataclass(frozen=True)
class CameraFeature:
    """The feature with the images of a camera."""

    feature: str
    kind: str  # "video" or "image"
    shape: list[int]  # height, width and 3 in any order: datasets agree neither on one nor on how to name it


@dataclass(frozen=True)
class Features:
    """Where our numbers are in a dataset's features."""

    state: list[tuple[str, list[int]]]  # features and their columns: joints, then fingers
    action: list[int]
    cameras: dict[str, CameraFeature]


class LerobotDataset:
    """Episodes of the dataset folder `root`.

    Args:
        root: the folder with meta/, data/ and videos/.
        cameras: camera -> feature, from the user; empty for those of the layout.
        layout_name: a name of LAYOUTS; None for ours.
        images: how the images are stored, one of TURNS; None as in the layout.
    """

    def __init__(self, root: Path, cameras: dict[str, str], layout_name: str | None = None, images: str | None = None):
        self._root, path = root, root / layout.INFO
        self._info = _read_info(path)
        features = self._info["features"]
        self._layout: Layout = find_layout(layout_name, features, str(path))
        self.images = images or self._layout.images
        self._check_rate(path)
        named = {
            camera: next((key for key in self._layout.cameras.get(camera, ()) if key in features), feature)
            for camera, feature in cameras.items()
        }
        self._features = _find_features(path, features, named, self._layout)
        self._older = self._info["codebase_version"] == OLDER
        self._instructions = (
            _read_tasks(root / "meta/tasks.jsonl") if self._older else _read_instructions(root / layout.TASKS)
        )
        self._episodes = self._checked(self._older_episodes() if self._older else self._read_episodes())
        self._open: tuple[Path, pa.Table] | None = None  # the data file read last; episodes follow each other in it

    def tasks(self) -> list[str]:
        """Return the instructions in the order of their first episode."""
        return list(dict.fromkeys(episode["tasks"][0] for episode in self._episodes))

    def demos(self, instruction: str) -> Iterator[Demo]:
        """Yield the demos of an instruction. Raises DataError."""
        for episode in self._episodes:
            if episode["tasks"][0] == instruction:
                yield self._read_demo(episode)

    def contents(self) -> list[tuple[int, str, int]]:
        """Return the number, instruction and number of steps of every episode."""
        return [(episode["episode_index"], episode["tasks"][0], episode["length"]) for episode in self._episodes]

    def all_demos(self) -> Iterator[tuple[str, Demo]]:
        """Yield the instruction and the demo of every episode, in the order of `contents`. Raises DataError."""
        for episode in self._episodes:
            yield episode["tasks"][0], self._read_demo(episode)

    def _check_rate(self, path: Path) -> None:
        rates = self._layout.rates_hz
        if self._info["fps"] not in rates:
            raise DataError(
                f"{path}: fps is {self._info['fps']}, expected {' or '.join(f'{rate:g}' for rate in rates)}, the "
                "policy's rate; resample the dataset"
            )

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
        tables = [(path, read_table(path, required)) for path in sorted(folder.glob("*/*.parquet"))]
        return [episode for _, table in tables for episode in table.to_pylist()]

    def _older_episodes(self) -> list[dict]:
        """Return the episodes of format 2.1; their files are numbered like they are."""
        path, chunk = self._root / "meta/episodes.jsonl", self._info.get("chunks_size", layout.FILES_PER_CHUNK)
        if not is_count(chunk) or chunk == 0:
            raise DataError(f"{self._root / layout.INFO}: chunks_size is {chunk!r:.80}, expected a positive number")
        episodes = _read_lines(path, {"episode_index": is_count, "tasks": [str], "length": is_count})
        return [episode | {"episode_chunk": episode["episode_index"] // chunk} for episode in episodes]

    def _checked(self, episodes: list[dict]) -> list[dict]:
        folder = self._root / "meta/episodes"
        episodes = sorted(episodes, key=lambda episode: episode["episode_index"])
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

    def _place(self, episode: dict, kind: str) -> dict[str, int]:
        """Return the numbers in the path of an episode's rows ("data") or of its video ("videos/FEATURE")."""
        if self._older:
            return {name: episode[name] for name in ("episode_chunk", "episode_index")}
        return {name: episode[f"{kind}/{name}"] for name in ("chunk_index", "file_index")}

    def _read_demo(self, episode: dict) -> Demo:
        name, steps = f"episode {episode['episode_index']}", episode["length"]
        path = self._path("data_path", **self._place(episode, "data"))
        table = self._data(path)
        rows = table.filter(pa.compute.equal(table["episode_index"], episode["episode_index"]))
        if len(rows) != steps or steps == 0:
            raise DataError(f"{path} has {len(rows)} rows of {name}, expected {max(steps, 1)}; copy the dataset again")
        where = f"{path}: {name}"
        self._check_rows(rows, episode, where)
        state = np.hstack(
            [read_numbers(rows, key, len(columns), where)[:, columns] for key, columns in self._features.state]
        )
        action = read_numbers(rows, ACTION, len(self._features.action), where)[:, self._features.action]
        action = clip_rounding(action, f"{where}: {ACTION}", f"scale it to {layout.units()[ACTION]}")
        joint, gripper = layout.from_state(state) if self._layout.robot_fingers else (state[:, :-2], state[:, -2:])
        if self._layout is not M2DISTILL:
            check_gripper(gripper, action, where)
        images = {name: self._images(camera, episode, rows, where) for name, camera in self._features.cameras.items()}
        return Demo(name, images, joint, gripper, action)

    def _check_rows(self, rows: pa.Table, episode: dict, where: str) -> None:
        """Raise DataError for images that need too much memory, uneven timestamps, and several instructions."""
        steps, fps = len(rows), self._info["fps"]
        asked_gib = steps * sum(math.prod(camera.shape) for camera in self._features.cameras.values()) / 2**30
        if asked_gib > MOST_IMAGES_GIB:
            raise DataError(
                f"{where} has {steps} steps, whose images would take {asked_gib:.3g} GiB, allowed "
                f"{MOST_IMAGES_GIB}; split it, or make its images smaller"
            )
        times = np.arange(steps) / fps
        if np.abs(read_numbers(rows, "timestamp", 1, where)[:, 0] - times).max() > TIME_TOLERANCE_S:
            raise DataError(f"{where} has timestamps that are not 0, 1/{fps}, ... s; record it at a steady rate")
        instructions = {self._instructions.get(index) for index in rows["task_index"].to_pylist()}
        if instructions != {episode["tasks"][0]}:
            raise DataError(
                f"{where} has rows of the tasks {sorted(map(str, instructions))}, expected "
                f"{episode['tasks'][0]!r} alone; split it"
            )

    def _images(self, camera: CameraFeature, episode: dict, rows: pa.Table, where: str) -> np.ndarray:
        feature = camera.feature
        if camera.kind == "image":
            images = decoded_images(rows[feature], f"{where}: {feature}")
        else:
            path = self._path("video_path", video_key=feature, **self._place(episode, f"videos/{feature}"))
            from_s = 0.0 if self._older else episode[f"videos/{feature}/from_timestamp"]
            images = read_frames(path, from_s, len(rows), self._info["fps"])
        with closing(images):
            return upright(stacked_images(images, len(rows), feature, camera.shape, where), self.images)

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
            states = [key for key, _ in self._features.state]
            needed = {"episode_index": INTEGER, "task_index": INTEGER, "timestamp": ANY}
            self._open = path, read_table(path, needed | dict.fromkeys([*states, ACTION, *images], ANY))
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
    if version not in (layout.VERSION, OLDER):
        raise DataError(
            f"{path}: codebase_version is {version!r}, expected {layout.VERSION!r} or {OLDER!r}; convert the dataset "
            "with LeRobot"
        )
    missing = [key for key in ("fps", "features", "total_episodes", "data_path") if key not in info]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}, has {', '.join(info)}; copy the dataset again")
    if not isinstance(info["features"], dict) or not all(isinstance(f, dict) for f in info["features"].values()):
        raise DataError(f"{path}: features is {info['features']!r:.80}, expected objects; copy the dataset again")
    return info


def _find_features(path: Path, features: dict, cameras: dict[str, str], its_layout: Layout) -> Features:
    required = [*(key for key, _, _ in its_layout.state), ACTION, *cameras.values()]
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
        found[camera] = CameraFeature(key, kind, shape)
    free = its_layout is not M2DISTILL  # LIBERO's converters agree on the order, not on the names
    return Features(
        [
            (key, _free_columns(path, key, features[key], width) if free else _columns(path, key, features[key], names))
            for key, names, width in its_layout.state
        ],
        _free_columns(path, ACTION, features[ACTION], len(layout.ACTION_NAMES))
        if free
        else _columns(path, ACTION, features[ACTION], layout.ACTION_NAMES),
        found,
    )


def _free_columns(path: Path, key: str, feature: dict, width: int) -> list[int]:
    """Return all columns of a feature of this width, in their order."""
    if feature.get("shape") != [width]:
        raise DataError(f"{path}: {key} has shape {feature.get('shape')}, expected [{width}]; name another --layout")
    return list(range(width))


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
    table = read_table(path, {"task_index": INTEGER})
    texts = [
        name
        for name in table.column_names
        if pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type)
    ]
    if len(texts) != 1:
        raise DataError(f"{path} has the columns {table.column_names}, expected task_index and the instructions")
    return dict(zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True))


def _read_tasks(path: Path) -> dict[int, str]:
    return {line["task_index"]: line["task"] for line in _read_lines(path, {"task_index": is_count, "task": str})}


def _read_lines(path: Path, schema: dict) -> list[dict]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; copy the dataset again")
    try:
        lines = [json.loads(line) for line in path.read_text("utf8").splitlines() if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); copy the dataset again") from None
    for number, line in enumerate(lines, 1):
        if not fits(line, schema):
            raise DataError(
                f"{path}: line {number} is {line!r:.80}, expected {', '.join(schema)}; copy the dataset again"
            )
    return lines
