"""Small LIBERO-format files, written with h5py alone: an oracle for the reader that shares no code with it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for bag_writer.py

SIZE_PX = 16


def write_libero_file(
    path: Path,
    instruction: str = "pick up the milk",
    demos: int = 3,
    steps: int = 9,
    seed: int = 0,
    size_px: int = SIZE_PX,
) -> Path:
    """Demos of `steps` + i steps of noise, keys and attributes as LIBERO writes them, obs after action, opengl rows."""
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": instruction})
        data.attrs["macros_image_convention"] = "opengl"
        for i in range(demos):
            T = steps + i
            demo = data.create_group(f"demo_{i}")
            demo["actions"] = rng.uniform(-1, 1, (T, 7))
            for camera in ("agentview_rgb", "eye_in_hand_rgb"):
                demo[f"obs/{camera}"] = rng.integers(0, 256, (T, size_px, size_px, 3), np.uint8)
            demo["obs/joint_states"] = rng.normal(size=(T, 7))
            demo["obs/gripper_states"] = rng.uniform(-0.04, 0.04, (T, 2))
    return path


@pytest.fixture(scope="session")
def write_libero() -> Callable[..., Path]:
    """`write_libero_file`, for fixtures that serve many tests."""
    return write_libero_file


@pytest.fixture
def libero_file(tmp_path) -> Callable[..., Path]:
    """libero_file(name="a", **options) -> path of a new file."""
    return lambda name="a", **options: write_libero_file(tmp_path / f"{name}_demo.hdf5", **options)
