"""Images for the model, compared with hand-computed arrays."""

import numpy as np
import pytest

from m2distill_policy.errors import SpecError
from m2distill_policy.observations.observation import prepare_image
from m2distill_policy.spec import CameraSpec


def test_rows_are_flipped_for_an_upside_down_camera():
    image = np.zeros((8, 8, 3), np.uint8)
    image[0] = 255  # the top row of the upright image
    turned = prepare_image(image, CameraSpec("c", 8, 8, upside_down=True))
    assert (turned[7] == 255).all() and (turned[:7] == 0).all()
    assert (prepare_image(image, CameraSpec("c", 8, 8, upside_down=False)) == image).all()


def test_a_larger_image_is_averaged_down():
    image = np.zeros((16, 16, 3), np.uint8)
    image[0, 0] = (200, 100, 40)  # a quarter of the first model pixel
    small = prepare_image(image, CameraSpec("c", 8, 8, upside_down=False))
    assert small[0, 0].tolist() == [50, 25, 10] and small.sum() == 85


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8), np.uint8), r"\(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\)"),
        (np.zeros((8, 10, 3), np.uint8), "10x8 px, expected 8x8"),
        (np.zeros((4, 4, 3), np.uint8), "4x4 px, expected 8x8"),
    ],
)
def test_a_wrong_image_is_rejected(image, named):
    with pytest.raises(SpecError, match=named):
        prepare_image(image, CameraSpec("c", 8, 8, upside_down=False))
