"""Export of LIBERO-format files as a LeRobot dataset (layout.py).

Each action is beside the observation that it was chosen from, independent of the file's convention. Demos of LIBERO's
own files therefore lose their first action.
"""

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from m2distill_policy.cameras import CAMERAS, Camera
from m2distill_policy.errors import DataError, UserError
from m2distill_policy.robot import other_robot
from m2distill_policy.spec import PolicySpec
from m2distill_policy.utils.files import flush_folder, fsync_path, new_folder, write_durably
from m2distill_training.data.lerobot import layout
from m2distill_training.data.lerobot import statistics as stats
from m2distill_training.data.lerobot.layout import ACTION, STATE
from m2distill_training.data.libero.reader import Demo, open_libero
from m2distill_training.data.videos import LOSSLESS, SMALL, VideoFiles

FIRST = {"chunk_index": 0, "file_index": 0}


def export_lerobot(
    files: Sequence[Path], out: Path, lossless: bool = False, cameras: Sequence[Camera] = CAMERAS
) -> dict:
    """Write the demos of `files`, one file per task, as the dataset folder `out` and return its info.json.

    The folder appears completely or not at all. Raises DataError for files that open_libero rejects or whose images
    differ in size.
    """
    if not files:
        raise UserError("no demonstration file given; name the HDF5 files of m2distill collect or import")
    with open_libero(files[0], "before", cameras) as first:
        robot = first.robot
    with new_dataset(out, lossless, cameras, robot) as writer:
        for path in files:
            with open_libero(path, "before", cameras) as file:
                if problem := other_robot(robot, file.robot):
                    raise DataError(f"{path}: its demonstrations are of another robot: {problem}; export it apart")
                for demo in file.demos():
                    writer.add(path, demo, file.instruction)
    return writer.info


@contextmanager
def new_dataset(
    out: Path, lossless: bool, cameras: Sequence[Camera], robot: PolicySpec = layout.SPEC
) -> Iterator["DatasetWriter"]:
    """Give the writer of the dataset folder `out`, which appears completely after the block, or not at all.

    `robot` has the joints, the rate and the actions of the demonstrations.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty; name a new folder")
    with new_folder(out) as temporary:
        with DatasetWriter(temporary, lossless, cameras, robot) as writer:
            yield writer
            writer.finish()
        flush_folder(temporary)
        try:
            temporary.rename(out)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise UserError(f"{out} was written by another process meanwhile; name a new folder") from None
        fsync_path(out.parent)


class DatasetWriter:
    """Writer of a dataset, episode by episode."""

    def __init__(self, root: Path, lossless: bool, cameras: Sequence[Camera], robot: PolicySpec):
        self._cameras, self._robot, self._fps = tuple(cameras), robot, round(robot.rate_hz)
        self._keys = {camera.name: camera.lerobot_key for camera in cameras}
        self._root = root
        self._coding = LOSSLESS if lossless else SMALL
        self._sizes: dict[str, tuple[int, int]] = {}  # camera -> (height, width), of the first demo
        limit_bytes = layout.VIDEO_FILE_MB * 2**20
        self._videos = {
            camera: VideoFiles(partial(self._video_path, key), self._coding, self._fps, limit_bytes)
            for camera, key in self._keys.items()
        }
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict] = []
        self._rows: list[dict[str, np.ndarray]] = []  # of each episode; without images some 100 bytes a step
        self._counts = {camera: np.zeros((3, 256), np.int64) for camera in self._keys}
        self._total = 0
        self.info: dict = {}  # of info.json, after `finish`

    def _video_path(self, key: str, number: int) -> Path:
        return self._root / layout.VIDEO_PATH.format(video_key=key, **_place(number))

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(self, *_) -> None:
        for videos in self._videos.values():
            videos.abandon()

    def add(self, path: Path, demo: Demo, instruction: str) -> None:
        sizes = {camera: frames.shape[1:3] for camera, frames in demo.images.items()}
        self._sizes = self._sizes or sizes
        if sizes != self._sizes:
            raise DataError(
                f"{path}: {demo.name} has images of {sizes}, those before it {self._sizes} (height, "
                "width); export datasets of one size each"
            )
        steps, number = len(demo.action), len(self._episodes)
        task = self._tasks.setdefault(instruction, len(self._tasks))
        rows = {
            STATE: layout.to_state(demo, self._robot),
            ACTION: demo.action,
            "timestamp": np.arange(steps, dtype=np.float32) / np.float32(self._fps),
            "frame_index": np.arange(steps),
            "episode_index": np.full(steps, number),
            "index": np.arange(self._total, self._total + steps),
            "task_index": np.full(steps, task),
        }
        episode = {
            "episode_index": number,
            "tasks": [instruction],
            "length": steps,
            **{f"data/{key}": value for key, value in FIRST.items()},
            "dataset_from_index": self._total,
            "dataset_to_index": self._total + steps,
        }
        statistics = {key: stats.of_rows(values) for key, values in rows.items()}
        for camera, frames in demo.images.items():
            key, place = self._keys[camera], self._videos[camera].add(frames)
            numbers = {**_place(place.file_number), "from_timestamp": place.from_s, "to_timestamp": place.to_s}
            episode |= {f"videos/{key}/{name}": value for name, value in numbers.items()}
            counts = stats.histogram(frames)
            statistics[key] = stats.of_images(counts, steps)
            self._counts[camera] += counts
        episode |= {
            f"stats/{key}/{name}": value for key, values in statistics.items() for name, value in values.items()
        }
        episode |= {f"meta/episodes/{key}": value for key, value in FIRST.items()}
        self._episodes.append(episode)
        self._rows.append(rows)
        self._total += steps

    def finish(self) -> None:
        """Write the tables, the statistics and info.json."""
        for videos in self._videos.values():
            videos.close()
        (self._root / layout.INFO).parent.mkdir(parents=True, exist_ok=True)
        rows = {key: np.concatenate([episode[key] for episode in self._rows]) for key in self._rows[0]}
        _write_table(
            self._root / layout.DATA_PATH.format(**FIRST), {key: _column(values) for key, values in rows.items()}
        )
        _write_table(
            self._root / layout.EPISODES_PATH.format(**FIRST),
            {key: [episode[key] for episode in self._episodes] for key in self._episodes[0]},
        )
        _write_tasks(self._root / layout.TASKS, self._tasks)
        images = {self._keys[camera]: stats.of_images(counts, self._total) for camera, counts in self._counts.items()}
        _write_json(self._root / layout.STATS, {key: stats.of_rows(values) for key, values in rows.items()} | images)
        info = {
            "codebase_version": layout.VERSION,
            "robot_type": "other" if other_robot(layout.SPEC, self._robot) else "panda",
            "total_episodes": len(self._episodes),
            "total_frames": self._total,
            "total_tasks": len(self._tasks),
            "chunks_size": layout.FILES_PER_CHUNK,
            "data_files_size_in_mb": layout.DATA_FILE_MB,
            "video_files_size_in_mb": layout.VIDEO_FILE_MB,
            "fps": self._fps,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": layout.DATA_PATH,
            "video_path": layout.VIDEO_PATH,
            "features": layout.features(self._sizes, self._coding, self._cameras, self._robot),
        }
        _write_json(self._root / layout.INFO, info)
        self.info = info


def _place(file_number: int) -> dict[str, int]:
    return {"chunk_index": file_number // layout.FILES_PER_CHUNK, "file_index": file_number % layout.FILES_PER_CHUNK}


def _column(values: np.ndarray) -> pa.Array:
    flat = pa.array(values.ravel())
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _write_table(path: Path, columns: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def _write_tasks(path: Path, tasks: dict[str, int]) -> None:
    """Write the tasks with the instruction as pandas index, as LeRobot requires."""
    table = pa.table({"task_index": list(tasks.values()), "task": list(tasks)})
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": stored, "metadata": None}
        for name, kind, stored in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    described = {"index_columns": ["task"], "columns": columns, "column_indexes": []}
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(described)}), path)


def _write_json(path: Path, content: dict) -> None:
    write_durably(path, json.dumps(content, indent=4).encode())
