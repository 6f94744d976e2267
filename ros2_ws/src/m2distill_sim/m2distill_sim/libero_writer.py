"""Writer of demonstration files in LIBERO's format, which robomimic reads.

There is one HDF5 file per task and one group per demonstration. Images are stored bottom row first. Attributes beyond
LIBERO's are `obs_after_action` (True: obs[j] was observed after actions[j], LIBERO's convention; False: before),
`assets`, and the origin of the demonstrations.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from m2distill_policy.cameras import CAMERAS, Camera
from m2distill_policy.errors import DataError
from m2distill_policy.utils.files import new_file
from m2distill_sim import lift
from m2distill_sim.arm_env import SimObservation
from m2distill_sim.suites import Task
from m2distill_sim.task_files import read_bddl

READ_ERRORS = (OSError, RuntimeError, LookupError, ValueError, TypeError, OverflowError)  # of h5py and JSON


@dataclass
class SimulatedEpisode:
    """T steps of one attempt: dataset path inside a demo -> array (T, ...), and the MJCF of its model."""

    datasets: dict[str, np.ndarray]
    model_xml: str

    @classmethod
    def of_rows(cls, rows: Sequence[dict[str, np.ndarray]], model_xml: str) -> "SimulatedEpisode":
        """Return the episode of these steps, the last of which succeeds."""
        last = np.zeros(len(rows), np.uint8)
        last[-1] = 1
        datasets = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return cls(datasets | {"rewards": last, "dones": last}, model_xml)


def observation_datasets(observation: SimObservation, cameras: Sequence[Camera] = CAMERAS) -> dict[str, np.ndarray]:
    """Return one step's datasets besides actions and states; `cameras` state the keys of the images."""
    orientation = observation.ee_axis_angle
    return {
        **{f"obs/{camera.hdf5_key}": observation.images[camera.name][::-1] for camera in cameras},
        "obs/joint_states": observation.joint_positions,
        "obs/gripper_states": observation.gripper_positions,
        "obs/ee_pos": observation.ee_pos,
        "obs/ee_ori": orientation,
        "obs/ee_states": np.concatenate([observation.ee_pos, orientation]),
        "robot_states": np.concatenate([observation.gripper_positions, observation.ee_pos, observation.ee_quat_xyzw]),
    }


def _write_demo(group: h5py.Group, episode: SimulatedEpisode) -> None:
    for name, array in episode.datasets.items():
        image = array.dtype == np.uint8 and array.ndim == 4
        group.create_dataset(
            name, data=array, chunks=(1, *array.shape[1:]) if image else None, compression="lzf" if image else None
        )
    group.attrs["num_samples"] = len(episode.datasets["actions"])
    group.attrs["init_state"] = episode.datasets["states"][0]
    group.attrs["model_file"] = episode.model_xml


def store_demo(path: Path, episode: SimulatedEpisode) -> None:
    """Write a file with this demonstration alone, for `write_task`; the file is complete or absent."""
    with new_file(path) as disk, h5py.File(disk, "w") as file:
        _write_demo(file, episode)


def write_task(
    path: Path, task: Task, demos: Sequence[Path], assets: str, obs_after_action: bool, attributes: dict[str, str]
) -> None:
    """Write a task's file; it is complete or absent.

    Args:
        path: file to write.
        task: task of the demonstrations.
        demos: files of `store_demo`, in the order of the demonstrations.
        assets: AssetSource.identity of the assets.
        obs_after_action: obs[j] was observed after actions[j].
        attributes: further attributes, which describe the origin of the demonstrations.

    Raises:
        DataError: one of `demos` is damaged, or the disk is full.
    """
    with new_file(path) as disk, h5py.File(disk, "w") as file:
        data = file.create_group("data")
        total = 0
        for index, demo in enumerate(demos):
            try:
                total += _copy_demo(demo, data.create_group(f"demo_{index}"))
            except READ_ERRORS as error:
                raise DataError(
                    f"{demo} cannot be copied to {path} ({error}); free disk space or, if the file is damaged, "
                    "remove it, and repeat the command"
                ) from None
            disk.check()
        problem = _problem(task)
        env_name = "_".join(word.capitalize() for word in problem.split("_"))  # robosuite's or LIBERO's class
        bddl = f"{task.suite}/{task.name}.bddl" if task.suite != lift.SUITE else ""
        data.attrs.update(
            {
                "env_name": env_name,
                "bddl_file_name": bddl,
                "problem_info": json.dumps(
                    {"problem_name": problem, "domain_name": "robosuite", "language_instruction": task.instruction}
                ),
                "env_args": json.dumps(
                    {
                        "type": 1,
                        "env_name": env_name,
                        "problem_name": problem,
                        "bddl_file": bddl,
                        "env_kwargs": {"robots": ["Panda"], "control_freq": 20},
                    }
                ),
                "macros_image_convention": "opengl",
                "num_demos": len(demos),
                "total": total,
                "obs_after_action": obs_after_action,
                "assets": assets,
                **attributes,
            }
        )


def _copy_demo(path: Path, group: h5py.Group) -> int:
    """Copy a demonstration of `store_demo` to a group; return its number of steps."""
    with h5py.File(path, "r", locking=False) as source:
        for name in source:
            source.copy(name, group)
        for name, value in source.attrs.items():
            group.attrs[name] = value
    return int(group.attrs["num_samples"])


def _problem(task: Task) -> str:
    """Return the name of LIBERO's problem, such as "libero_floor_manipulation"."""
    if task.suite == lift.SUITE:
        return lift.NAME
    return read_bddl(task.bddl_file)["problem"][0]
