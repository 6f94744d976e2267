"""Reader of LIBERO / robomimic HDF5 files: checked demonstrations. Only this module knows the keys of the files.

Images are returned upright. LIBERO stores them as the renderer returns them (bottom row first), and this reader flips
them, so that recorded and live images enter `observation.prepare_image` alike.

Pairing. LIBERO stores obs[j] AFTER actions[j] has been executed and trains obs[j] -> actions[j] as stored (robomimic's
SequenceDataset takes both at the same index), so the label of an image is the action that led to it. "before" pairs
each action with the observation it was chosen from, obs[j-1] -> actions[j], and loses each demo's first action.
"as_stored" keeps the indices of the file, for comparison with LIBERO's numbers. A file that stores the observation
before the action has the attribute /data obs_after_action = False. OpenVLA's regenerated files are such files without
the attribute, so the convention is also read from the simulator's states (pairing.py).

A task is named SUITE/NAME after its BDDL file, because instructions of LIBERO repeat: LIBERO-90 has 90 tasks and 74
instructions.

LIBERO's files have the joints and the pose of the hand, of which training chooses one. A file of another robot has what
its spec states. Orientations of the hand are brought to the one axis-angle that the live session uses (poses.py).
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from m2distill_policy.cameras import CAMERAS, Camera
from m2distill_policy.errors import DataError, SpecError, UserError
from m2distill_policy.observations.poses import nearest_rotations
from m2distill_policy.spec import HAND_POSE, PANDA_JOINTS, STATES, PolicySpec, libero_spec
from m2distill_policy.suites import LIBERO_SUITES, task_instruction
from m2distill_training.config import PAIRINGS
from m2distill_training.data.actions import clip_rounding
from m2distill_training.data.libero.hdf5_checks import member, reading
from m2distill_training.data.libero.pairing import obs_after_action

AGAIN = "copy or collect it again"
JOINT_WIDTH, HAND_WIDTH, GRIPPER_WIDTH, ACTION_WIDTH = 7, 6, 2, 7  # of LIBERO's Panda
ARM_KEYS = {"joints": "obs/joint_states", "hand": "obs/ee_states"}
SPEC_ATTRIBUTE = "spec"  # of /data: the PolicySpec of the demonstrations; without it they are LIBERO's Panda's


@dataclass(frozen=True)
class Demo:
    """One demonstration of T paired steps."""

    name: str
    images: dict[str, np.ndarray]  # camera -> (T, H, W, 3) uint8 RGB, upright
    joint: np.ndarray  # (T, J) float32, rad; of the hand (T, 6), m and axis-angle in rad
    gripper: np.ndarray  # (T, G) float32, m or rad, signed by the spec; LIBERO's: m, second finger negative
    action: np.ndarray  # (T, 7) float32 in [-1, 1]


class LiberoFile:
    """Demonstrations of one task, open for reading; created by `open_libero`."""

    def __init__(
        self, path: Path, file: h5py.File, pairing: str, cameras: Sequence[Camera] = CAMERAS, state: str | None = None
    ):
        if pairing not in PAIRINGS:
            raise DataError(f"pairing is {pairing!r}, allowed: {', '.join(PAIRINGS)}")
        self.path, self.cameras = path, tuple(cameras)
        data = member(file, "data")
        if not isinstance(data, h5py.Group):
            raise DataError(f"{path}: group /data is missing; expected a LIBERO or robomimic demonstration file")
        self._data = data
        self.demo_names = sorted((n for n in self._data if n.startswith("demo_")), key=self._demo_number)
        if not self.demo_names:
            raise DataError(f"{path}: /data holds no demo_<number> group, expected at least one")
        self._shift = 1 if obs_after_action(self._data, path, self.demo_names) and pairing == "before" else 0
        convention = self._data.attrs.get("macros_image_convention", "opengl")
        if not isinstance(convention, str) or convention not in ("opengl", "opencv"):
            raise DataError(f"{path}: macros_image_convention is {convention!r}, allowed: opengl, opencv")
        self._upside_down = convention == "opengl"
        self.instruction = self._read_instruction()
        self.robot = self._read_robot(state)
        self._arm_key = ARM_KEYS["hand" if self.robot.observes_hand else "joints"]
        self.task = self._read_task()  # SUITE/NAME; empty if the file does not name it

    def lengths(self) -> list[int]:
        """Return the number of paired steps of each demo, without reading the arrays."""
        with reading(f"{self.path}", AGAIN):
            return [self._steps(name) - self._shift for name in self.demo_names]

    def demos(self) -> Iterator[Demo]:
        """Yield the demos in numerical order, each checked completely first. Raises DataError."""
        for name in self.demo_names:
            with reading(f"{self.path}: {name}", AGAIN):
                demo = self._read_demo(name)
            yield demo

    def _demo_number(self, name: str) -> int:
        if not name[5:].isdecimal():
            raise DataError(f"{self.path}: group /data/{name} is not demo_<number>")
        return int(name[5:])

    def _read_task(self) -> str:
        bddl = self._data.attrs.get("bddl_file_name")
        parts = PurePosixPath(bddl.replace("\\", "/")).parts if isinstance(bddl, str) else ()
        if len(parts) < 2:  # OpenVLA's files keep LIBERO's names alone
            parts = (self.path.parent.name, self.path.name.removesuffix("_demo.hdf5"))
        suite, name = parts[-2].lower(), parts[-1].removesuffix(".bddl")
        return f"{suite}/{name}" if suite in LIBERO_SUITES and re.fullmatch(r"\w{1,200}", name) else ""

    def _read_instruction(self) -> str:
        if "problem_info" not in self._data.attrs and (words := _words_of_name(self.path)):
            return words
        try:
            instruction = json.loads(self._data.attrs["problem_info"])["language_instruction"]
        except (KeyError, ValueError, TypeError, RecursionError):
            raise DataError(
                f"{self.path}: attribute problem_info of /data is missing or holds no "
                "language_instruction; write it as JSON, as LIBERO does"
            ) from None
        # LIBERO's files quote some instructions and split others into words.
        parts = instruction if isinstance(instruction, list) else [instruction]
        text = " ".join(" ".join(parts).replace('"', " ").split()) if all(isinstance(p, str) for p in parts) else ""
        if not text:
            raise DataError(
                f"{self.path}: language_instruction in problem_info of /data is {instruction!r}, expected words"
            )
        return text

    def _read_robot(self, state: str | None) -> PolicySpec:
        """Return a spec whose joints, rate and actions are those of the demonstrations."""
        text = self._data.attrs.get(SPEC_ATTRIBUTE)
        if text is None:
            hand = self._has_hand_alone() if state is None else state == "hand"
            return libero_spec(joint_names=HAND_POSE if hand else PANDA_JOINTS)
        try:
            robot = PolicySpec.from_json(text if isinstance(text, str) else "")
        except (SpecError, UserError) as error:
            raise DataError(
                f"{self.path}: attribute {SPEC_ATTRIBUTE} of /data is not a spec ({error}); import it again"
            ) from None
        has = STATES[robot.observes_hand]
        if state not in (None, has):
            raise DataError(
                f"{self.path}: its demonstrations have the {has} of the arm, asked for is the {state}; learn them with "
                f"--state {has}, or import the episodes again with --state {state}"
            )
        return robot

    def _has_hand_alone(self) -> bool:
        """Return whether the first demonstration has the pose of the hand and no joints, as LeRobot's LIBERO sets."""
        joints, hand = (member(self._data, f"{self.demo_names[0]}/{ARM_KEYS[state]}") for state in STATES)
        return joints is None and hand is not None

    def _dataset(self, demo: str, key: str) -> h5py.Dataset:
        dataset = member(self._data, f"{demo}/{key}")
        if not isinstance(dataset, h5py.Dataset):
            raise DataError(f"{self.path}: {demo}/{key} is missing; collect the demo again or drop it from the file")
        return dataset

    def _steps(self, demo: str) -> int:
        steps = len(self._table(demo, "actions", ACTION_WIDTH))
        if steps <= self._shift:
            raise DataError(f"{self.path}: {demo} has {steps} steps, expected at least {self._shift + 1}")
        return steps

    def _read_demo(self, demo: str) -> Demo:
        steps = self._steps(demo)
        action = clip_rounding(self._numbers(demo, "actions", ACTION_WIDTH), f"{self.path}: {demo}/actions")
        joint = self._numbers(demo, self._arm_key, len(self.robot.joint_names), steps)
        if self.robot.observes_hand:
            joint[:, 3:] = nearest_rotations(joint[:, 3:], self.robot.hand_reference)
        gripper = self._numbers(demo, "obs/gripper_states", len(self.robot.gripper_joint_names), steps)
        images = {camera.name: self._images(demo, f"obs/{camera.hdf5_key}", steps) for camera in self.cameras}
        until = steps - self._shift  # obs[j-1] -> actions[j] when shifted
        return Demo(
            demo,
            {camera: frames[:until] for camera, frames in images.items()},
            joint[:until],
            gripper[:until],
            action[self._shift :],
        )

    def _table(self, demo: str, key: str, width: int, steps: int | None = None) -> h5py.Dataset:
        """Return a dataset of real numbers with one row of `width` per step, not read yet."""
        dataset = self._dataset(demo, key)
        expected = f"({'T' if steps is None else steps}, {width})"
        if dataset.ndim != 2 or dataset.shape[1] != width or (steps is not None and len(dataset) != steps):
            raise DataError(f"{self.path}: {demo}/{key} has shape {dataset.shape}, expected {expected}")
        if dataset.dtype.kind not in "fiu":
            raise DataError(f"{self.path}: {demo}/{key} has type {dataset.dtype}, expected real numbers")
        return dataset

    def _numbers(self, demo: str, key: str, width: int, steps: int | None = None) -> np.ndarray:
        with np.errstate(over="ignore"):  # values beyond float32 become infinite and are rejected
            values = self._table(demo, key, width, steps)[:].astype(np.float32)
        if len(bad := np.argwhere(~np.isfinite(values))):
            raise DataError(f"{self.path}: {demo}/{key} is not finite at step {bad[0][0]}; drop the demo from the file")
        return values

    def _images(self, demo: str, key: str, steps: int) -> np.ndarray:
        dataset = self._dataset(demo, key)
        if dataset.dtype != np.uint8 or dataset.ndim != 4 or dataset.shape[3] != 3 or len(dataset) != steps:
            raise DataError(
                f"{self.path}: {demo}/{key} is {dataset.dtype} {dataset.shape}, expected uint8 ({steps}, H, W, 3)"
            )
        frames = dataset[:]
        return frames[:, ::-1] if self._upside_down else frames


def _words_of_name(path: Path) -> str:
    """Return the instruction in a file name such as LIBERO's, with at least two words; empty for another name."""
    name = path.name.removesuffix("_demo.hdf5")
    return task_instruction(name) if name != path.name and re.fullmatch(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)+", name) else ""


@contextmanager
def open_libero(
    path: Path, pairing: str, cameras: Sequence[Camera] = CAMERAS, state: str | None = None
) -> Iterator[LiberoFile]:
    """Open the file of one task.

    Args:
        path: The file.
        pairing: As in the module's docstring.
        cameras: The names of the cameras in the file.
        state: One of STATES; None: the joints, or the hand in a file without them.

    Raises:
        DataError: The file is missing, damaged, or has another state.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give LIBERO-format HDF5 files, for example from `m2distill collect`")
    try:
        file = h5py.File(path, "r", locking=False)  # Lustre and NFS may have no locks
    except OSError as error:
        raise DataError(f"{path}: not a readable HDF5 file ({error}); {AGAIN}") from None
    with file:
        with reading(f"{path}", AGAIN):
            demos = LiberoFile(path, file, pairing, cameras, state)
        yield demos
