"""Two tasks to export, and what LeRobot calls its files."""

from pathlib import Path

import numpy as np

from m2distill_training.data.libero.reader import open_libero

INSTRUCTIONS = ("pick up the milk", "Open the top drawer!")
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
ROWS = "data/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.{}/chunk-000/file-000.mp4"


def two_tasks(write_libero, folder: Path) -> list[Path]:
    """Write the files of two tasks: three demos of 8, 9 and 10 pairs, two of 5 and 6."""
    return [
        write_libero(folder / "a_demo.hdf5", instruction=INSTRUCTIONS[0]),
        write_libero(folder / "b_demo.hdf5", instruction=INSTRUCTIONS[1], demos=2, steps=6, seed=1),
    ]


def demos_of(path):
    with open_libero(path, "before") as file:
        return file.instruction, list(file.demos())


def assert_same(path, source):
    (instruction, demos), (expected, sources) = demos_of(path), demos_of(source)
    assert instruction == expected
    for demo, other in zip(demos, sources, strict=True):
        np.testing.assert_array_equal(demo.joint, other.joint)
        np.testing.assert_array_equal(demo.gripper, other.gripper)
        np.testing.assert_array_equal(demo.action, other.action)
        for camera, frames in demo.images.items():
            np.testing.assert_array_equal(frames, other.images[camera])
