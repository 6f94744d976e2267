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
        (np.zeros((4, 4, 3), np.uint8), "4x4 px, expected 8x8"),
        (np.zeros((4, 100, 3), np.uint8), "100x4 px, expected 8x8"),
    ],
)
def test_a_wrong_image_is_rejected(image, named):
    with pytest.raises(SpecError, match=named):
        prepare_image(image, CameraSpec("c", 8, 8, upside_down=False))


SIZES = [(480, 640), (720, 1280), (96, 64)]


@pytest.mark.parametrize("size", SIZES)
def test_a_camera_of_another_aspect_ratio_is_cropped_to_its_centre(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    side = min(size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    square = image[top : top + side, left : left + side]
    camera = CameraSpec("c", 32, 32, upside_down=True)
    assert (prepare_image(image, camera) == prepare_image(square, camera)).all()


@pytest.mark.parametrize("size", SIZES)
def test_padding_keeps_the_whole_image_between_black_borders(size):
    image = np.full((*size, 3), 200, np.uint8)
    padded = prepare_image(image, CameraSpec("c", 64, 64, upside_down=False, image_fit="pad"))
    assert padded[32, 32].tolist() == [200] * 3
    assert padded[0, 0].tolist() == padded[-1, -1].tolist() == [0] * 3
    assert (padded == 200).mean() == pytest.approx(min(size) / max(size), abs=0.02)


def test_another_aspect_ratio_is_rejected_on_request_aspect_ratio_with_the_setting_to_change():
    camera = CameraSpec("c", 8, 8, upside_down=False, image_fit="reject")
    with pytest.raises(SpecError, match="camera c: got 10x8 px, expected the aspect ratio of 8x8 px; .*image_fit"):
        prepare_image(np.zeros((8, 10, 3), np.uint8), camera)
    assert prepare_image(np.zeros((16, 16, 3), np.uint8), camera).shape == (8, 8, 3)


def test_the_model_input_may_be_wide():
    image = np.zeros((480, 640, 3), np.uint8)
    image[60:420] = 255  # 640x360, the centre of the aspect ratio 16:9
    assert (prepare_image(image, CameraSpec("c", 90, 160, upside_down=False)) == 255).all()
