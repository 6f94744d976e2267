"""Recorded motion of one episode in one file, which the policy node can follow in place of a checkpoint.

A safetensors file with `action` (T, 7) float32 and `joint` (T, J) float32 in rad. Its metadata are the spec (JSON), the
text by which the motion is requested, and the tolerance. No ROS or torch import here.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from m2distill_policy.action import ACTION_WIDTH
from m2distill_policy.errors import DataError, SpecError, UserError
from m2distill_policy.spec import PolicySpec
from m2distill_policy.utils.files import write_atomically

DEFAULT_TOLERANCE_RAD = 0.2
MAX_TOLERANCE_RAD = 1.0
ARRAYS = {"action", "joint"}


@dataclass(frozen=True)
class RecordedMotion:
    """T steps of one episode."""

    spec: PolicySpec
    text: str  # instruction that requests the motion; no task's
    action: np.ndarray  # (T, 7) float32, as ActionSpec defines them
    joint: np.ndarray  # (T, J) float32, rad, before each action
    tolerance_rad: float = DEFAULT_TOLERANCE_RAD  # largest distance of a joint from the recording
    id: str = ""  # sha256 hex of the file, set by load_motion

    def __post_init__(self):
        steps, joints = len(self.action), len(self.spec.joint_names)
        if self.action.shape != (steps, ACTION_WIDTH) or self.joint.shape != (steps, joints) or not steps:
            raise DataError(
                f"the motion has actions {self.action.shape} and joints {self.joint.shape}, expected (T, 7) and "
                f"(T, {joints}) with T at least 1"
            )
        if not (np.isfinite(self.action).all() and np.isfinite(self.joint).all()):
            raise DataError("the motion has numbers that are not finite; replay another episode")
        if not 0 < self.tolerance_rad <= MAX_TOLERANCE_RAD:  # false for NaN
            raise UserError(f"the tolerance is {self.tolerance_rad:g} rad, allowed above 0 up to {MAX_TOLERANCE_RAD:g}")
        if not self.text.strip():
            raise DataError("the motion has no text by which it is requested")


def save_motion(path: Path, motion: RecordedMotion) -> None:
    """Write a motion; readers see the complete file or none."""
    arrays = {name: np.ascontiguousarray(getattr(motion, name), dtype=np.float32) for name in ARRAYS}
    metadata = {"spec": motion.spec.to_json(), "text": motion.text, "tolerance_rad": repr(motion.tolerance_rad)}
    write_atomically(path, safetensors.numpy.save(arrays, metadata))


def load_motion(path: Path) -> RecordedMotion:
    """Read and check the file that `save_motion` wrote.

    Raises:
        UserError: The file is no recorded motion, is damaged, or holds numbers that are not allowed.
    """
    wrong = f"{path} is neither the folder of a checkpoint nor a recorded motion"
    try:
        content = path.read_bytes()
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            found = set(file.keys())
        arrays = safetensors.numpy.load(content)
        if found != ARRAYS or any(array.dtype != np.float32 for array in arrays.values()):
            raise DataError(f"{wrong}: it holds {sorted(found)}, expected {sorted(ARRAYS)} in float32")
        tolerance_rad = float(metadata["tolerance_rad"])
        spec = PolicySpec.from_json(metadata["spec"])
        text = metadata["text"]
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); choose another file") from None
    except (SafetensorError, SpecError, KeyError, ValueError, RecursionError) as error:
        raise DataError(f"{wrong}: {error}") from None
    if not math.isfinite(tolerance_rad):
        raise DataError(f"{wrong}: its tolerance is {tolerance_rad}")
    return RecordedMotion(
        spec, text, arrays["action"], arrays["joint"], tolerance_rad, hashlib.sha256(content).hexdigest()
    )
