"""numpy <-> messages. Oracles: numbers by hand, and OpenCV's own conversions."""

import array
import contextlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image

from m2distill_policy.ros import messages
from m2distill_policy.ros.messages import ENCODINGS, MessageError

TO_RGB = {"rgb8": None, "bgr8": cv2.COLOR_BGR2RGB, "rgba8": cv2.COLOR_RGBA2RGB, "bgra8": cv2.COLOR_BGRA2RGB,
          "mono8": cv2.COLOR_GRAY2RGB}
TO_RGB |= {name.replace("8", "16"): code for name, code in TO_RGB.items()}


def image(samples: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> Image:
    """A message of (H, W, C) samples with `padding` bytes of rubbish after each row."""
    height, width, _ = samples.shape
    rows = samples.astype(samples.dtype.newbyteorder(">" if big_endian else "<")).reshape(height, -1).view(np.uint8)
    rows = np.hstack([rows, np.full((height, padding), 0xEE, np.uint8)])
    return Image(height=height, width=width, encoding=encoding, step=rows.shape[1], is_bigendian=int(big_endian),
                 data=array.array("B", rows.tobytes()))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 6])
def test_every_encoding_decodes_as_opencv_does(encoding, big_endian, padding):
    channels, sample_bytes, _ = ENCODINGS[encoding]
    dtype = np.uint8 if sample_bytes == 1 else np.uint16
    samples = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (5, 7, channels), dtype, endpoint=True)
    expected = samples if TO_RGB[encoding] is None else cv2.cvtColor(samples, TO_RGB[encoding])
    if dtype == np.uint16:
        expected = cv2.convertScaleAbs(expected, alpha=255 / 65535)
    decoded = messages.image_to_numpy(image(samples, encoding, padding, big_endian))
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous


def test_a_picture_by_hand():
    message = Image(height=1, width=2, encoding="bgr8", step=8, data=[1, 2, 3, 4, 5, 6, 99, 99])
    assert messages.image_to_numpy(message).tolist() == [[[3, 2, 1], [6, 5, 4]]]


def test_a_picture_survives_the_way_there_and_back():
    picture = np.random.default_rng(1).integers(0, 256, (6, 4, 3), np.uint8)
    message = messages.image_from_numpy(picture, 1_500_000_000, "camera")
    assert (message.header.stamp.sec, message.header.stamp.nanosec, message.step) == (1, 500_000_000, 12)
    np.testing.assert_array_equal(messages.image_to_numpy(message), picture)


@pytest.mark.parametrize(("change", "complaint"), [
    ({"encoding": "bayer_rggb8"}, "image encoding 'bayer_rggb8' is not supported"),
    ({"step": 11}, "image step is 11 bytes, but 4 px of rgb8 take 12"),
    ({"height": 7}, "image has 72 bytes, expected 84: 7 rows of 12"),
    ({"width": 0}, "image is empty: 6x0 px"),
])
def test_a_malformed_picture_is_refused_with_the_reason(change, complaint):
    message = messages.image_from_numpy(np.zeros((6, 4, 3), np.uint8), 0, "camera")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(MessageError, match=complaint):
        messages.image_to_numpy(message)


@given(encoding=st.sampled_from([*ENCODINGS, "", "yuv422"]), height=st.integers(0, 9), width=st.integers(0, 2**31),
       step=st.integers(0, 2**31), size=st.integers(0, 400))
def test_no_header_makes_decoding_crash(encoding, height, width, step, size):
    message = Image(encoding=encoding, height=height, width=width, step=step, data=array.array("B", bytes(size)))
    with contextlib.suppress(MessageError):
        assert messages.image_to_numpy(message).shape == (height, width, 3)


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_compressed_pictures_keep_their_colours(extension):
    picture = np.full((16, 16, 3), (200, 100, 20), np.uint8)
    data = cv2.imencode(extension, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    decoded = messages.compressed_image_to_numpy(CompressedImage(format="x", data=array.array("B", data.tobytes())))
    assert np.abs(decoded.astype(int) - picture).max() <= (0 if extension == ".png" else 3)


@given(st.binary(max_size=100))
def test_rubbish_is_no_compressed_picture(data):
    with pytest.raises(MessageError, match="cannot be decoded"):
        messages.compressed_image_to_numpy(CompressedImage(format="jpeg", data=array.array("B", data)))


def test_a_twist_survives_the_way_there_and_back_and_must_be_finite():
    linear, angular = np.array([0.1, -0.2, 0.3]), np.array([-1.0, 2.0, -3.0])
    message = messages.twist_from_numpy(linear, angular, 7, "panda_link0")
    back = messages.twist_to_numpy(message)
    np.testing.assert_array_equal(np.concatenate(back), np.concatenate([linear, angular]))
    message.twist.angular.z = float("nan")
    with pytest.raises(MessageError, match="not finite"):
        messages.twist_to_numpy(message)


@pytest.mark.parametrize("stamp_ns", [0, 1, 999_999_999, 1_000_000_000, 1_795_168_483_613_441_157])
def test_stamps_are_exact(stamp_ns):
    assert messages.stamp_to_ns(messages.stamp_from_ns(stamp_ns)) == stamp_ns
