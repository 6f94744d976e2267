"""LeRobot's dataset format 3.0: names, types and units of our demonstrations in it.

    meta/info.json               version, rate, features with their shapes, names and units, where the files are
    meta/stats.json              statistics of each feature over the whole dataset
    meta/tasks.parquet           task_index <-> instruction
    meta/episodes/chunk-000/     one row per episode: length, where its rows and images are, its own statistics
    data/chunk-000/              one row per step
    videos/FEATURE/chunk-000/    images, several episodes to a file, found by their time in it

A row holds the observation and the action that was chosen from it ("before" in libero/reader.py). The image of row t is
the video's at from_timestamp + t / rate. Images are upright. Both fingers open positively, as on a robot.
lerobot_export.py writes and lerobot_import.py reads, both through `features`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from m2distill_policy.cameras import CAMERAS, Camera, find_camera
from m2distill_policy.spec import PolicySpec, libero_spec
from m2distill_training.data.libero.reader import Demo
from m2distill_training.data.videos import Coding

VERSION = "v3.0"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
EPISODES_PATH = f"meta/episodes/{_FILE}.parquet"
DATA_PATH = f"data/{_FILE}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{_FILE}.mp4"
FILES_PER_CHUNK, DATA_FILE_MB, VIDEO_FILE_MB = 1000, 100, 200  # LeRobot's defaults

STATE, ACTION = "observation.state", "action"
COUNTERS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}  # what LeRobot adds to every row
ACTION_NAMES = ("x", "y", "z", "rotation_x", "rotation_y", "rotation_z", "gripper")

SPEC = libero_spec()  # of the demonstrations: Panda, 20 Hz


def state_names(spec: PolicySpec = SPEC) -> tuple[str, ...]:
    return spec.joint_names + spec.gripper_joint_names


def units(spec: PolicySpec = SPEC) -> dict[str, list[str]]:
    """Return the unit of each number, feature by feature."""
    action = spec.action
    arm = ["m"] * 3 + ["rad"] * 3 if spec.observes_hand else ["rad"] * len(spec.joint_names)
    return {
        STATE: [*arm, *["m"] * len(spec.gripper_joint_names)],
        ACTION: [f"{action.linear_scale_m} m per step"] * 3
        + [f"{action.angular_scale_rad} rad per step"] * 3
        + ["-1 open, 1 closed"],
    }


def features(
    sizes: dict[str, tuple[int, int]], coding: Coding, cameras: Sequence[Camera] = CAMERAS, spec: PolicySpec = SPEC
) -> dict[str, dict]:
    """Return the `features` of info.json; `sizes` are {camera: (height, width) px}, `cameras` name features."""
    names = {STATE: state_names(spec), ACTION: ACTION_NAMES}
    rows: dict[str, dict[str, Any]] = {
        key: {
            "dtype": "float32",
            "shape": [len(names[key])],
            "names": list(names[key]),
            "info": {"units": units(spec)[key]},
        }
        for key in names
    }
    rows[ACTION]["info"]["frame"] = spec.action.frame_id
    images = {
        find_camera(camera, cameras).lerobot_key: {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": height,
                "video.width": width,
                "video.channels": 3,
                "video.fps": round(spec.rate_hz),
                "video.codec": coding.codec,
                "video.pix_fmt": coding.pixels,
                "has_audio": False,
                "is_depth_map": False,
            },
        }
        for camera, (height, width) in sizes.items()
    }
    counters = {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in COUNTERS.items()}
    return {**rows, **images, **counters}


def to_state(demo: Demo, spec: PolicySpec = SPEC) -> np.ndarray:
    """Return (T, 9) float32, rad and m, with a robot's finger signs."""
    return np.hstack([demo.joint, demo.gripper * _signs(spec)])


def from_state(state: np.ndarray, spec: PolicySpec = SPEC) -> tuple[np.ndarray, np.ndarray]:
    """Return (T, 7) rad and (T, 2) m with training's finger signs, the inverse of `to_state`."""
    joints = len(spec.joint_names)
    return state[:, :joints], state[:, joints:] * _signs(spec)


def _signs(spec: PolicySpec) -> np.ndarray:
    return np.array(spec.gripper_joint_signs, np.float32)  # 1 and -1: their own inverse
