"""Fit an image to the aspect ratio of the model input: the same code in training, import and live session.

Cameras are mostly 4:3 or 16:9, and the model's images are mostly square.
"""

import numpy as np

from m2distill_policy.errors import SpecError

CENTRE_CROP, PAD, REJECT = "centre_crop", "pad", "reject"
FITS = (CENTRE_CROP, PAD, REJECT)


def fit_image(image_HWC: np.ndarray, height: int, width: int, fit: str) -> np.ndarray:
    """Return the image in the aspect ratio of height x width, in its own resolution.

    Args:
        image_HWC: (H, W, 3).
        height: rows of the model input.
        width: columns of the model input.
        fit: centre_crop takes the largest part in the centre; pad adds black borders on both sides; reject
            raises an error. A border or a cut is rounded to whole pixels.

    Raises:
        SpecError: another aspect ratio with `reject`.
    """
    rows, columns = image_HWC.shape[:2]
    is_wide = columns * height > rows * width
    if fit == CENTRE_CROP:
        new = (rows, round(rows * width / height)) if is_wide else (round(columns * height / width), columns)
        top, left = (rows - new[0]) // 2, (columns - new[1]) // 2
        return image_HWC[top : top + new[0], left : left + new[1]]
    if fit == PAD:
        new = (round(columns * height / width), columns) if is_wide else (rows, round(rows * width / height))
        padded = np.zeros((*new, *image_HWC.shape[2:]), image_HWC.dtype)
        top, left = (new[0] - rows) // 2, (new[1] - columns) // 2
        padded[top : top + rows, left : left + columns] = image_HWC
        return padded
    raise SpecError(
        f"got {columns}x{rows} px, expected the aspect ratio of {width}x{height} px; set the camera's resolution, or "
        "image_fit in the arm file of the demonstrations"
    )
