"""Convert raw arrays to model input: the only place that flips and resizes images and orders joints.

Training and the live session use the same two functions, so an image or a joint vector has the same meaning in both.
The division of pixels by 255 is in models/batch.py, which both use as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from m2distill_policy.errors import SpecError
from m2distill_policy.spec import CameraSpec, PolicySpec


@dataclass(frozen=True)
class Observation:
    """One step of model input, as numpy arrays."""

    images: dict[str, np.ndarray]  # camera -> (height, width, 3) uint8, RGB, model orientation
    joint: np.ndarray  # (J,) float32, rad
    gripper: np.ndarray  # (G,) float32, m, signed as in training
    stamp_ns: int  # of its newest part


def prepare_image(image_HWC: np.ndarray, camera: CameraSpec) -> np.ndarray:
    """Resize and flip an image to the model's size and orientation. Larger images are area-averaged.

    Args:
        image_HWC: upright image, (H, W, 3) uint8 RGB.
        camera: the model's size and orientation.

    Returns:
        (height, width, 3) uint8 RGB, contiguous.

    Raises:
        SpecError: another dtype or shape, another aspect ratio, which would distort the image, or an image smaller than
            the model's.
    """
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3:
        raise SpecError(
            f"camera {camera.name}: got {image_HWC.dtype} {image_HWC.shape}, expected uint8 (height, width, 3)"
        )
    height, width = image_HWC.shape[:2]
    if height * camera.width != width * camera.height or height < camera.height:
        raise SpecError(
            f"camera {camera.name}: got {width}x{height} px, expected {camera.width}x{camera.height} "
            "or a larger image of that aspect ratio; set the camera's resolution or crop the image"
        )
    if height != camera.height:
        image_HWC = cv2.resize(image_HWC, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    if camera.upside_down:
        image_HWC = image_HWC[::-1]
    return np.ascontiguousarray(image_HWC)


def order_joints(spec: PolicySpec, names: Sequence[str], positions: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Sort joint positions into the order of the spec. Joints that the spec does not name are ignored.

    Args:
        spec: joint names, gripper joint names and their signs.
        names: joint names, in any order.
        positions: as many positions, rad; m for gripper joints.

    Returns:
        joint (J,) float32 rad, and gripper (G,) float32 m with the signs of the training data.

    Raises:
        SpecError: a joint is missing or repeated, the lengths differ, or a position is not finite.
    """
    if len(names) != len(positions):
        raise SpecError(f"joint_states has {len(names)} names and {len(positions)} positions, expected equal numbers")
    by_name = dict(zip(names, positions, strict=True))
    if len(by_name) != len(names):
        raise SpecError(f"joint_states repeats a joint name: {list(names)}")
    required = spec.joint_names + spec.gripper_joint_names
    missing = [name for name in required if name not in by_name]
    if missing:
        raise SpecError(
            f"joint_states lacks {missing}, got {list(names)}; correct the joint names of the spec or of the driver"
        )
    with np.errstate(over="ignore"):  # values beyond float32 become infinite and are rejected
        values = np.array([by_name[name] for name in required], dtype=np.float64).astype(np.float32)
    if not np.isfinite(values).all():
        bad = [name for name, value in zip(required, values, strict=True) if not np.isfinite(value)]
        raise SpecError(f"joint_states is not finite at {bad}")
    count = len(spec.joint_names)
    return values[:count], values[count:] * np.array(spec.gripper_joint_signs, dtype=np.float32)
