"""Synthetic demonstrations: noise in the shapes of LIBERO's, for benchmarks without a dataset."""

import json
from pathlib import Path

import h5py
import numpy as np

from m2distill_policy.cameras import CAMERAS
from m2distill_training.data.libero.reader import ACTION_WIDTH, GRIPPER_WIDTH, JOINT_WIDTH
from m2distill_training.data.store import Store

TEXT_WIDTH = 768  # BERT's


def text(seed: int) -> np.ndarray:
    """Return a stand-in for a sentence embedding, (L,) float32."""
    return np.tanh(np.random.default_rng(seed).standard_normal(TEXT_WIDTH)).astype(np.float32)


def demonstration(rng: np.random.Generator, steps: int, size_px: int) -> dict[str, np.ndarray]:
    """Return {LIBERO's key: array of `steps` rows}; images are (steps, size_px, size_px, 3) uint8."""
    images = {
        f"obs/{camera.hdf5_key}": rng.integers(0, 256, (steps, size_px, size_px, 3), np.uint8) for camera in CAMERAS
    }
    return {
        "actions": rng.uniform(-1, 1, (steps, ACTION_WIDTH)),
        **images,
        "obs/joint_states": rng.normal(size=(steps, JOINT_WIDTH)),
        "obs/gripper_states": rng.uniform(-0.04, 0.04, (steps, GRIPPER_WIDTH)),
    }


def memory_store(steps: int, size_px: int, seed: int) -> Store:
    """Return one demo as a store with frames in memory."""
    demo = demonstration(np.random.default_rng(seed), steps, size_px)
    joint, gripper, action = (
        demo[key].astype(np.float32) for key in ("obs/joint_states", "obs/gripper_states", "actions")
    )
    images = {camera.name: demo[f"obs/{camera.hdf5_key}"] for camera in CAMERAS}
    return Store(Path("synthetic"), "synthetic", f"task {seed}", images, joint, gripper, action, np.array([0, steps]))


def write_file(path: Path, demos: int, steps: int, size_px: int) -> Path:
    """Write a demonstration file as LIBERO's own: contiguous, not compressed."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": "task"})
        data.attrs["macros_image_convention"] = "opengl"
        for i in range(demos):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = steps
            for key, array in demonstration(rng, steps, size_px).items():
                demo[key] = array
    return path
