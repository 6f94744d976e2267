"""Images and joints for the model, compared with hand-computed arrays."""

import numpy as np
import pytest

from m2distill_policy.errors import SpecError
from m2distill_policy.observations.observation import order_joints, prepare_image
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS, CameraSpec, libero_spec


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


def test_joints_are_sorted_by_name_and_extra_joints_ignored():
    spec = libero_spec()
    values = {name: i / 10 for i, name in enumerate(PANDA_JOINTS)}
    values |= dict(zip(PANDA_FINGERS, (0.03, 0.04), strict=True)) | {"lift": 9.0}
    names = sorted(values, reverse=True)
    joint, gripper = order_joints(spec, names, [values[n] for n in names])
    np.testing.assert_allclose(joint, np.arange(7) / 10, rtol=1e-6)
    np.testing.assert_allclose(gripper, [0.03, -0.04], rtol=1e-6)  # robosuite gives the second finger a negative sign
    assert joint.dtype == gripper.dtype == np.float32


ALL = PANDA_JOINTS + PANDA_FINGERS


@pytest.mark.parametrize(
    ("names", "positions", "named"),
    [
        (ALL[1:], [0.0] * 8, r"lacks \['panda_joint1'\]"),
        (ALL, [0.0] * 8, "9 names and 8 positions"),
        (ALL + ALL[:1], [0.0] * 10, "repeats"),
        (ALL, [0.0] * 8 + [float("nan")], r"not finite at \['panda_finger_joint2'\]"),
        (ALL, [float("inf")] + [0.0] * 8, r"not finite at \['panda_joint1'\]"),
        (ALL, [1e300] + [0.0] * 8, r"not finite at \['panda_joint1'\]"),  # as float32, which the model reads
        ((), (), "lacks"),
    ],
)
def test_malformed_joints_are_rejected(names, positions, named):
    with pytest.raises(SpecError, match=named):
        order_joints(libero_spec(), names, positions)
