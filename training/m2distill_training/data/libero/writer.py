"""Writer of LIBERO-format HDF5 files, for sources without a simulator.

The keys are those of reader.py, and of robomimic. Observations precede their action, as the attribute obs_after_action
states. Images are stored bottom row first. (m2distill_sim.libero_writer is the simulator's writer, with states and
model.)
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from m2distill_policy.cameras import CAMERAS, Camera, find_camera
from m2distill_policy.errors import DataError
from m2distill_policy.spec import PolicySpec
from m2distill_policy.utils.files import new_file
from m2distill_training.data.libero.reader import ARM_KEYS, HAND_WIDTH, SPEC_ATTRIBUTE, Demo

MOST_NAME_BYTES = 200  # of the instruction within a file's name; most systems end at 255


@dataclass(frozen=True)
class NewDemo:
    """A demo to write, with further datasets and attributes."""

    demo: Demo
    more: Mapping[str, np.ndarray]  # further datasets of T rows
    attributes: Mapping[str, str]  # of its group


def file_names(instructions: Iterable[str]) -> dict[str, str]:
    """Return {instruction: name of its task's file}. Raises DataError for two that would share one."""
    names: dict[str, str] = {}
    for text in instructions:
        words = re.sub(r"\W+", "_", text.lower()).strip("_").encode()[:MOST_NAME_BYTES].decode(errors="ignore")
        name = f"{words or 'task'}_demo.hdf5"
        if name in names.values():
            raise DataError(
                f"{name} would hold {next(t for t, n in names.items() if n == name)!r} and {text!r}, which "
                "differ in punctuation or far behind alone; change one"
            )
        names[text] = name
    return names


def write_demos(
    path: Path,
    instruction: str,
    demos: Iterable[NewDemo],
    cameras: Sequence[Camera] = CAMERAS,
    spec: PolicySpec | None = None,
) -> None:
    """Write the file of one task, completely or not at all. Demos are taken one by one.

    `cameras` are their keys in the file. `spec` is of the robot; None: LIBERO's Panda. Raises DataError if the disk
    rejects the file.
    """
    try:
        with new_file(path) as disk, h5py.File(disk, "w") as file:
            data = file.create_group("data")
            total = 0
            for index, new in enumerate(demos):
                _write_demo(data.create_group(f"demo_{index}"), new, cameras, spec)
                total += len(new.demo.action)
                disk.check()
            data.attrs.update(
                {
                    "env_name": "",
                    "env_args": json.dumps({"type": 1, "env_name": "", "env_kwargs": {}}),
                    "problem_info": json.dumps(
                        {"problem_name": "", "domain_name": "", "language_instruction": instruction}
                    ),
                    "macros_image_convention": "opengl",
                    "num_demos": len(data),
                    "obs_after_action": False,
                    "total": total,
                    **({SPEC_ATTRIBUTE: spec.to_json()} if spec is not None else {}),
                }
            )
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}); make room, or choose another folder") from None


def _write_demo(group: h5py.Group, new: NewDemo, cameras: Sequence[Camera], spec: PolicySpec | None) -> None:
    demo = new.demo
    hand = spec.observes_hand if spec else demo.joint.shape[1] == HAND_WIDTH
    last = np.zeros(len(demo.action), np.uint8)
    last[-1] = 1
    rows = {
        "actions": demo.action,
        "rewards": last,
        "dones": last,
        ARM_KEYS["hand" if hand else "joints"]: demo.joint,
        "obs/gripper_states": demo.gripper,
        **new.more,
    }
    for name, array in rows.items():
        group.create_dataset(name, data=array)
    for camera, images in demo.images.items():
        group.create_dataset(
            f"obs/{find_camera(camera, cameras).hdf5_key}",
            data=images[:, ::-1],
            chunks=(1, *images.shape[1:]),
            compression="lzf",
        )
    group.attrs.update({"num_samples": len(demo.action), **new.attributes})
