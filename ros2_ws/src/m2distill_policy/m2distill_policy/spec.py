"""PolicySpec: names, sizes and SI units of a policy's inputs and actions. It is part of every checkpoint.

Training and serving read the same spec, so they cannot disagree on a number. JSON is strict: an unknown or a missing
key is an error, never a default, except keys that a later version added.
"""

import dataclasses
import hashlib
import json
import math
import re
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m2distill_policy.cameras import CAMERAS, MAX_CAMERAS, Camera, square_sizes
from m2distill_policy.errors import CheckpointError, SpecError
from m2distill_policy.observations.image_fit import CENTRE_CROP, FITS
from m2distill_policy.utils.schema import NewerSchema, with_schema, without_schema

SPEC, SUMS = "spec.json", "SHA256SUMS"  # files of a checkpoint
SUMS_FORM = re.compile(rb"([0-9a-f]{64}  [\w.]+\n){5}")

PANDA_JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
PANDA_FINGERS = ("panda_finger_joint1", "panda_finger_joint2")
HAND_POSE = ("hand_x", "hand_y", "hand_z", "hand_rx", "hand_ry", "hand_rz")  # in place of joints: m, axis-angle in rad
STATES = ("joints", "hand")  # what a policy observes of the arm
WORLD = "world"  # frame of the hand in LIBERO's data
HAND_DOWN = (1.0, 0.0, 0.0, 0.0)  # quaternion x, y, z, w of a hand that points down, as LIBERO's does
ADDED = "added"  # in the metadata of a field: older files may lack it
MAX_JOINTS, MAX_TEXT_WIDTH = 128, 65536  # far above any real robot or text encoder


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SpecError(message)


@dataclass(frozen=True)
class CameraSpec:
    """One camera. Its images arrive upright, HWC uint8 RGB, in any size; the model input is height x width pixels."""

    name: str  # topic prefix on the robot, key in a batch
    height: int
    width: int
    upside_down: bool  # the model input has its bottom row first, as LIBERO's data from the renderer
    # how an image of another aspect ratio becomes model input, one of FITS
    image_fit: str = dataclasses.field(default=CENTRE_CROP, metadata={ADDED: True})

    def __post_init__(self):
        _require(self.image_fit in FITS, f"camera {self.name} has the image_fit {self.image_fit!r}, allowed {FITS}")
        _require(self.name.isidentifier(), f"camera name {self.name!r} is not an identifier")
        _require(
            8 <= self.height <= 4096 and 8 <= self.width <= 4096,
            f"camera {self.name} is {self.height}x{self.width} px, allowed 8 to 4096 per side",
        )


@dataclass(frozen=True)
class ActionSpec:
    """Meaning of the 7 numbers of an action in [-1, 1], in the arm's base frame.

    [0:3] is a translation times `linear_scale_m`, in m per step. [3:6] is an axis-angle rotation times
    `angular_scale_rad`, in rad per step. [6] is the gripper, from -1 open to +1 closed. The default scales are those of
    robosuite's OSC_POSE controller as LIBERO configures it.
    """

    linear_scale_m: float = 0.05
    angular_scale_rad: float = 0.5
    gripper_open_width_m: float = 0.08
    frame_id: str = "panda_link0"

    def __post_init__(self):
        for name in ("linear_scale_m", "angular_scale_rad", "gripper_open_width_m"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, f"action.{name} is {value}, expected a positive number")
        _require(bool(self.frame_id), "action.frame_id is empty")


@dataclass(frozen=True)
class PolicySpec:
    """Contract between a policy and its robot: cameras, joints, history, rate and action scales."""

    cameras: tuple[CameraSpec, ...]
    joint_names: tuple[str, ...] = PANDA_JOINTS
    gripper_joint_names: tuple[str, ...] = PANDA_FINGERS
    # robosuite gives the second finger a negative sign; robots do not
    gripper_joint_signs: tuple[float, ...] = (1.0, -1.0)
    history: int = 10  # steps of observation history, LIBERO's value
    rate_hz: float = 20.0  # control rate, LIBERO's value
    action: ActionSpec = ActionSpec()
    text_encoder: str = "bert-base-cased"  # see language/text_encoder.py
    text_width: int = 768
    # frame of the hand's pose, and the orientation that decides which quaternion of a rotation counts (observations/
    # poses.py); for a policy that observes the hand
    hand_frame_id: str = dataclasses.field(default=WORLD, metadata={ADDED: True})
    hand_reference: tuple[float, ...] = dataclasses.field(default=HAND_DOWN, metadata={ADDED: True})

    def __post_init__(self):
        _require(bool(self.hand_frame_id), "hand_frame_id is empty")
        reference = self.hand_reference
        _require(
            len(reference) == 4 and abs(math.hypot(*reference) - 1.0) < 1e-3 and reference[3] >= 0,
            f"hand_reference is {list(reference)}, expected a unit quaternion x, y, z, w with w of at least 0",
        )
        _require(
            1 <= len(self.cameras) <= MAX_CAMERAS,
            f"cameras has {len(self.cameras)} entries, allowed 1 to {MAX_CAMERAS}",
        )
        names = [c.name for c in self.cameras]
        _require(len(set(names)) == len(names), f"camera names {names} are not unique")
        joints = self.joint_names + self.gripper_joint_names
        _require(len(joints) <= MAX_JOINTS, f"{len(joints)} joints are named, allowed up to {MAX_JOINTS}")
        _require(len(set(joints)) == len(joints), f"joint names {joints} are not unique")
        _require(
            len(self.gripper_joint_signs) == len(self.gripper_joint_names),
            f"gripper_joint_signs has {len(self.gripper_joint_signs)} entries, "
            f"expected {len(self.gripper_joint_names)}",
        )
        _require(1 <= self.history <= 1000, f"history is {self.history} steps, allowed 1 to 1000")
        _require(
            math.isfinite(self.rate_hz) and 0 < self.rate_hz <= 1000,
            f"rate_hz is {self.rate_hz}, allowed above 0 up to 1000",
        )
        _require(
            0 < self.text_width <= MAX_TEXT_WIDTH, f"text_width is {self.text_width}, allowed 1 to {MAX_TEXT_WIDTH}"
        )

    @property
    def observes_hand(self) -> bool:
        """The policy observes the pose of the hand in place of the joints, one of LIBERO's options."""
        return self.joint_names == HAND_POSE

    def observing_hand(self) -> "PolicySpec":
        """Return the spec of a policy that observes the hand in the frame of the actions, not the joints."""
        if self.observes_hand:
            return self
        return dataclasses.replace(self, joint_names=HAND_POSE, hand_frame_id=self.action.frame_id)

    @property
    def period_ns(self) -> int:
        """Control period."""
        return round(1e9 / self.rate_hz)

    def camera(self, name: str) -> CameraSpec:
        """Return the camera of that name. Raises SpecError."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise SpecError(f"no camera {name!r} in the spec (allowed: {', '.join(c.name for c in self.cameras)})")

    def to_json(self) -> str:
        """Return the spec as JSON."""
        return json.dumps(with_schema(dataclasses.asdict(self)), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> "PolicySpec":
        """Return the spec that `to_json` wrote. Raises SpecError for anything else."""
        return strict_from_json(PolicySpec, text)


def libero_spec(
    size_px: int = 128,
    history: int = 10,
    text_encoder: str = "bert-base-cased",
    text_width: int = 768,
    cameras: Sequence[Camera] = CAMERAS,
    joint_names: tuple[str, ...] = PANDA_JOINTS,
) -> PolicySpec:
    """Return the spec of a policy trained on LIBERO data: square images, bottom row first, a Panda at 20 Hz."""
    views = tuple(CameraSpec(name, *size, upside_down=True) for name, size in square_sizes(size_px, cameras).items())
    return PolicySpec(views, joint_names, history=history, text_encoder=text_encoder, text_width=text_width)


def strict_from_json(cls, text: str):
    """Read a frozen dataclass, which may be nested, from JSON.

    Raises:
        SpecError: a key is missing or unknown, or a value has another type.
        NewerSchema: a newer version wrote it.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deeply
        raise SpecError(f"{cls.__name__} is not JSON: {error}") from None
    return _read(cls, without_schema(data), cls.__name__)


def _read(kind, value, where: str):
    origin = typing.get_origin(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        _require(isinstance(value, dict), f"{where} is {type(value).__name__}, expected an object")
        types = typing.get_type_hints(kind)
        added = {field.name for field in dataclasses.fields(kind) if ADDED in field.metadata}
        missing, unknown = sorted(types.keys() - value.keys() - added), sorted(value.keys() - types.keys())
        _require(not missing and not unknown, f"{where} has missing keys {missing} and unknown keys {unknown}")
        return kind(**{name: _read(types[name], value[name], f"{where}.{name}") for name in value})
    if origin is tuple:
        _require(isinstance(value, list), f"{where} is {type(value).__name__}, expected a list")
        return tuple(_read(typing.get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if kind is float:
        _require(
            type(value) in (int, float) and abs(value) <= sys.float_info.max,
            f"{where} is {value!r:.80}, expected a number",
        )
        return float(value)
    _require(type(value) is kind, f"{where} is {value!r:.80}, expected {kind.__name__}")
    return value


def checkpoint_id(sums: bytes) -> str:
    """Return the id of a checkpoint: the sha256 of its SHA256SUMS."""
    return hashlib.sha256(sums).hexdigest()


def _read_sums_and_spec(checkpoint: Path) -> tuple[bytes, bytes]:
    """Return SHA256SUMS and the spec of one version; a writer may replace the checkpoint between the two."""
    for _ in range(2):
        sums, spec = (checkpoint / SUMS).read_bytes(), (checkpoint / SPEC).read_bytes()
        line = f"{hashlib.sha256(spec).hexdigest()}  {SPEC}\n".encode()
        if SUMS_FORM.fullmatch(sums) and line in sums:
            return sums, spec
    raise CheckpointError(f"{checkpoint} is damaged: {SPEC} does not match {SUMS}; restore it from a copy")


def read_spec(checkpoint: Path) -> tuple[PolicySpec, str]:
    """Return the spec and the id of a checkpoint without reading its weights.

    Raises:
        CheckpointError: the directory is not a checkpoint of this version.
    """
    try:
        sums, spec = _read_sums_and_spec(checkpoint)
        return PolicySpec.from_json(spec.decode()), checkpoint_id(sums)
    except OSError as error:
        raise CheckpointError(f"{checkpoint} is not a checkpoint: {error.strerror}: {error.filename}") from None
    except NewerSchema as error:
        raise CheckpointError(f"{checkpoint}: {error}") from None
    except (SpecError, ValueError) as error:
        raise CheckpointError(f"{checkpoint} is not a checkpoint of this version: {error}") from None
