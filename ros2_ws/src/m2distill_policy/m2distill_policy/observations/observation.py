"""Convert raw images to model input: the only place that flips and resizes them.

Training and the live session use the same function, so an image has the same meaning in both; `joint_merger.py` does
the same for joints. The division of pixels by 255 is in models/batch.py, which both use as well.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from m2distill_policy.errors import SpecError
from m2distill_policy.observations.image_fit import fit_image
from m2distill_policy.spec import CameraSpec


@dataclass(frozen=True)
class Observation:
    """One step of model input, as numpy arrays."""

    images: dict[str, np.ndarray]  # camera -> (height, width, 3) uint8, RGB, model orientation
    joint: np.ndarray  # (J,) float32, rad; of the hand (6,), m and axis-angle in rad
    gripper: np.ndarray  # (G,) float32, m, signed as in training
    stamp_ns: int  # of its newest part


def prepare_image(image_HWC: np.ndarray, camera: CameraSpec) -> np.ndarray:
    """Fit, resize and flip an image to the model's size and orientation. Larger images are area-averaged.

    Args:
        image_HWC: upright image, (H, W, 3) uint8 RGB.
        camera: the model's size and orientation, and how another aspect ratio is treated (image_fit.py).

    Returns:
        (height, width, 3) uint8 RGB, contiguous.

    Raises:
        SpecError: another dtype or shape, another aspect ratio with `image_fit` reject, or an image smaller than the
            model's.
    """
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3:
        raise SpecError(
            f"camera {camera.name}: got {image_HWC.dtype} {image_HWC.shape}, expected uint8 (height, width, 3)"
        )
    height, width = image_HWC.shape[:2]
    if height * camera.width != width * camera.height:
        try:
            image_HWC = fit_image(image_HWC, camera.height, camera.width, camera.image_fit)
        except SpecError as error:
            raise SpecError(f"camera {camera.name}: {error}") from None
    if image_HWC.shape[0] < camera.height or image_HWC.shape[1] < camera.width:
        raise SpecError(
            f"camera {camera.name}: got {width}x{height} px, expected {camera.width}x{camera.height} "
            f"or a larger image (image_fit {camera.image_fit}); raise the camera's resolution"
        )
    if image_HWC.shape[:2] != (camera.height, camera.width):
        image_HWC = cv2.resize(image_HWC, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    if camera.upside_down:
        image_HWC = image_HWC[::-1]
    return np.ascontiguousarray(image_HWC)
