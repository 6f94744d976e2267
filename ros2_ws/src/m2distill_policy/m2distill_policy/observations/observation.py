"""Raw arrays to model input: the only place that flips and resizes images and orders joints.

Training reads its frames through the same two functions as the live session, so an image or a joint vector means the
same in both. The division of pixels by 255 is in observation_tensors.py, which both use as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from m2distill_policy.errors import SpecError
from m2distill_policy.spec import CameraSpec, PolicySpec


@dataclass(frozen=True)
class Observation:
    """One step of model input, still numpy."""

    images: dict[str, np.ndarray]  # camera -> (height, width, 3) uint8, RGB, model orientation
    joint: np.ndarray  # (J,) float32, rad
    gripper: np.ndarray  # (G,) float32, m, signed as in training
    stamp_ns: int  # of the newest part


def prepare_image(image_HWC: np.ndarray, camera: CameraSpec) -> np.ndarray:
    """An upright HWC uint8 RGB image to (height, width, 3) uint8 at the model's size and orientation.

    Larger images are area-averaged down. Raises SpecError for another dtype or shape, another aspect ratio (it would
    squash what the model was trained on) or an image smaller than the model's.
    """
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3:
        raise SpecError(
            f"camera {camera.name}: got {image_HWC.dtype} {image_HWC.shape}, expected uint8 (height, width, 3)"
        )
    height, width = image_HWC.shape[:2]
    if height * camera.width != width * camera.height or height < camera.height:
        raise SpecError(
            f"camera {camera.name}: got {width}x{height} px, expected {camera.width}x{camera.height} "
            "or a larger image of that shape; set the camera's size or crop it"
        )
    if height != camera.height:
        image_HWC = cv2.resize(image_HWC, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    if camera.upside_down:
        image_HWC = image_HWC[::-1]
    return np.ascontiguousarray(image_HWC)


def order_joints(spec: PolicySpec, names: Sequence[str], positions: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Joint positions by name, in any order, to (joint (J,) float32 rad, gripper (G,) float32 m, training's signs).

    Joints that the spec does not name are passed over. Raises SpecError for a missing or repeated joint, a length
    mismatch or a position that is not finite.
    """
    if len(names) != len(positions):
        raise SpecError(f"joint_states has {len(names)} names and {len(positions)} positions, expected as many of each")
    by_name = dict(zip(names, positions, strict=True))
    if len(by_name) != len(names):
        raise SpecError(f"joint_states repeats a joint name: {list(names)}")
    wanted = spec.joint_names + spec.gripper_joint_names
    missing = [name for name in wanted if name not in by_name]
    if missing:
        raise SpecError(f"joint_states lacks {missing}, got {list(names)}; set the spec's joint names or the driver's")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused as that
        values = np.array([by_name[name] for name in wanted], dtype=np.float64).astype(np.float32)
    if not np.isfinite(values).all():
        bad = [name for name, value in zip(wanted, values, strict=True) if not np.isfinite(value)]
        raise SpecError(f"joint_states is not finite at {bad}")
    count = len(spec.joint_names)
    return values[:count], values[count:] * np.array(spec.gripper_joint_signs, dtype=np.float32)
