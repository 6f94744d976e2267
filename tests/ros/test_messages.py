"""Conversions between numpy arrays and messages; tests/policy/test_image_decoding.py tests the encodings."""

import array

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.common.conversions import MessageError


def test_an_image_survives_a_round_trip():
    image = np.random.default_rng(1).integers(0, 256, (6, 4, 3), np.uint8)
    message = conversions.image_from_numpy(image, 1_500_000_000, "camera")
    assert (message.header.stamp.sec, message.header.stamp.nanosec, message.step) == (1, 500_000_000, 12)
    np.testing.assert_array_equal(conversions.image_to_numpy(message), image)


def test_a_message_is_decoded_by_its_own_fields():
    message = Image(height=1, width=2, encoding="mono16", step=5, is_bigendian=1, data=[255, 255, 0, 129, 99])
    assert conversions.image_to_numpy(message).tolist() == [[[255] * 3, [1] * 3]]
    message.step = 4
    with pytest.raises(MessageError, match="image has 5 bytes, expected 4"):
        conversions.image_to_numpy(message)


@pytest.mark.parametrize(
    ("format", "colour"), [("jpeg", [200, 100, 20]), ("rgb8; jpeg compressed rgb8", [20, 100, 200])]
)
def test_a_compressed_message_is_decoded_by_its_own_fields(format, colour):
    image = np.full((16, 16, 3), (20, 100, 200), np.uint8)  # BGR
    data = array.array("B", cv2.imencode(".jpg", image)[1].tobytes())
    decoded = conversions.compressed_image_to_numpy(CompressedImage(format=format, data=data))
    np.testing.assert_allclose(decoded, np.broadcast_to(colour, decoded.shape), atol=3)
    with pytest.raises(MessageError, match="of 9 bytes, format 'jpeg', cannot be decoded"):
        conversions.compressed_image_to_numpy(CompressedImage(format="jpeg", data=data[:9]))


def test_a_twist_survives_a_round_trip_and_must_be_finite():
    linear, angular = np.array([0.1, -0.2, 0.3]), np.array([-1.0, 2.0, -3.0])
    message = conversions.twist_from_numpy(linear, angular, 7, "panda_link0")
    back = conversions.twist_to_numpy(message)
    np.testing.assert_array_equal(np.concatenate(back), np.concatenate([linear, angular]))
    message.twist.angular.z = float("nan")
    with pytest.raises(MessageError, match="not finite"):
        conversions.twist_to_numpy(message)


@pytest.mark.parametrize("stamp_ns", [0, 1, 999_999_999, 1_000_000_000, 1_795_168_483_613_441_157])
def test_stamps_are_exact(stamp_ns):
    assert conversions.stamp_to_ns(conversions.stamp_from_ns(stamp_ns)) == stamp_ns
