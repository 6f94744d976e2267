"""Image decoding of messages and bags. Oracles: hand-computed values, rosbags-image, and cv_bridge if installed."""

import contextlib
import struct
import subprocess
import sys
import types
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.image import compressed_image_to_cvimage, image_to_cvimage

from m2distill_policy.errors import MessageError
from m2distill_policy.observations.image_decoding import ENCODINGS, MAX_PIXELS, decode_compressed, decode_raw

NEEDS_ROUNDING = [name for name in ENCODINGS if name.endswith("16")]  # the oracle truncates, our decoder rounds


def message(samples: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> types.SimpleNamespace:
    """Return the fields of sensor_msgs/Image for (rows, W, C) samples, with `padding` random bytes after each row."""
    layout = ENCODINGS[encoding]
    order = samples.dtype.newbyteorder(">" if big_endian else "<")
    rows = samples.astype(order).reshape(len(samples), -1).view(np.uint8)
    rows = np.hstack([rows, np.full((len(rows), padding), 0xEE, np.uint8)])
    height = len(samples) * layout.rows[1] // layout.rows[0]
    return types.SimpleNamespace(
        encoding=encoding,
        height=height,
        width=samples.shape[1],
        step=rows.shape[1],
        is_bigendian=big_endian,
        data=rows.reshape(-1),
    )


def noise(encoding: str, rows: int = 12, width: int = 8) -> np.ndarray:
    layout = ENCODINGS[encoding]
    dtype = (np.uint8, np.uint16)[layout.sample_bytes - 1]
    return np.random.default_rng(0).integers(
        0, np.iinfo(dtype).max, (rows, width, layout.channels), dtype, endpoint=True
    )


def decode(m: types.SimpleNamespace) -> np.ndarray:
    return decode_raw(m.encoding, m.height, m.width, m.step, m.is_bigendian, m.data)


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name[:2] != "nv"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_every_encoding_decodes_as_rosbags_image_does(encoding, big_endian):
    m = message(noise(encoding), encoding, big_endian=big_endian)
    expected = image_to_cvimage(m, "rgb8")  # it swaps the bytes of 16-bit samples
    decoded = decode(m)
    assert decoded.shape == (12, 8, 3) and decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    off = decoded.astype(int) - expected
    assert off.min() >= 0 and off.max() <= (1 if encoding in NEEDS_ROUNDING else 0)


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_encodings_with_colour_planes_decode_as_rosbags_image_does(encoding):
    """rosbags-image uses the height of the planes as the height of the image."""
    m = message(noise(encoding), encoding)
    assert m.height == 8
    planes = types.SimpleNamespace(**{**vars(m), "height": 12})
    np.testing.assert_array_equal(decode(m), image_to_cvimage(planes, "rgb8"))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("big_endian", [False, True])
def test_neither_padding_nor_byte_order_changes_the_image(encoding, big_endian):
    samples = noise(encoding)
    np.testing.assert_array_equal(decode(message(samples, encoding, 6, big_endian)), decode(message(samples, encoding)))


def test_the_encodings_of_cv_bridge_decode_as_it_does():
    if subprocess.run([sys.executable, "-c", "import cv_bridge"], stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("no cv_bridge that works with this numpy")  # a build for numpy 1 may crash instead of raising
    import cv_bridge

    for encoding in ENCODINGS.keys() - {"nv12", "nv21", "uyvy", "yuyv"}:  # cv_bridge does not support these
        m = message(noise(encoding), encoding, padding=6)
        np.testing.assert_array_equal(decode(m), cv_bridge.CvBridge().imgmsg_to_cv2(m, "rgb8"), encoding)


@pytest.mark.parametrize(
    ("encoding", "step", "data", "expected"),
    [
        ("bgr8", 8, [1, 2, 3, 4, 5, 6, 99, 99], [[3, 2, 1], [6, 5, 4]]),
        ("rgba8", 8, [1, 2, 3, 9, 4, 5, 6, 9], [[1, 2, 3], [4, 5, 6]]),
        ("mono16", 4, [0xFF, 0xFF, 0x80, 0x00], [[255] * 3, [0] * 3]),  # 0x0080 is half of one step of 257
        ("mono16", 4, [0xFF, 0xFF, 0x81, 0x00], [[255] * 3, [1] * 3]),
        ("yuv422", 4, [128, 235, 128, 16], [[255] * 3, [0] * 3]),  # U Y V Y
        ("yuv422_yuy2", 4, [235, 128, 16, 128], [[255] * 3, [0] * 3]),  # Y U Y V
    ],
)
def test_two_pixels_have_the_hand_computed_values(encoding, step, data, expected):
    assert decode_raw(encoding, 1, 2, step, False, bytes(data)).tolist() == [expected]


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_nv12_and_nv21_decode_red_to_red(encoding):
    chroma = [90, 240] if encoding == "nv12" else [240, 90]  # U V, or V U
    red = decode_raw(encoding, 2, 2, 2, False, bytes([81] * 4 + chroma))
    np.testing.assert_allclose(red, np.full((2, 2, 3), (255, 0, 0)), atol=2)


@pytest.mark.parametrize("encoding", ["bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"])
def test_a_red_bayer_mosaic_decodes_to_red(encoding):
    square = encoding[6:10]
    mosaic = np.tile([[255 if square[2 * y + x] == "r" else 0 for x in range(2)] for y in range(2)], (6, 6))
    image = decode_raw(encoding, 12, 12, 12, False, mosaic.astype(np.uint8).tobytes())
    assert (image[2:-2, 2:-2] == (255, 0, 0)).all()


GOOD = {"encoding": "rgb8", "height": 6, "width": 4, "step": 12, "big_endian": False, "data": bytes(72)}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"encoding": "32FC1"}, "image encoding '32FC1' is not supported \\(allowed: rgb8, bgr8"),
        ({"encoding": "8UC3"}, "image encoding '8UC3' is not supported"),  # its channel order is undefined
        ({"step": 11}, "image step is 11 bytes, but 4 px of rgb8 take 12"),
        ({"height": 7}, "image has 72 bytes, expected 84: 7 rows of 12"),
        ({"width": 0}, "image is empty: 6x0 px"),
        (
            {"height": 2**32 - 1, "width": 2**32 - 1, "step": 2**32 - 1},
            "image is 4294967295x4294967295 px, allowed 167772",
        ),
        (
            {"encoding": "yuv422", "width": 3},
            "image is 6x3 px, but yuv422 needs a height and a width that are multiples of 1 and 2",
        ),
        ({"encoding": "nv21", "height": 5}, "image is 5x4 px, but nv21 needs"),
        ({"encoding": "nv21"}, "image has 72 bytes, expected 108: 9 rows of 12"),
    ],
)
def test_a_malformed_image_is_rejected_with_the_reason(change, problem):
    assert decode_raw(**GOOD).shape == (6, 4, 3)
    with pytest.raises(MessageError, match=problem):
        decode_raw(**{**GOOD, **change})


@settings(deadline=None)
@given(
    encoding=st.sampled_from([*ENCODINGS, "", "8UC3"]),
    height=st.integers(0, 9) | st.integers(0, 2**32 - 1),
    width=st.integers(0, 9) | st.integers(0, 2**32 - 1),
    step=st.integers(0, 90) | st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_no_header_makes_decoding_crash(encoding, height, width, step, data):
    fitting = st.sampled_from([min(height * step, 2000), min(height * step * 3 // 2, 2000)])
    size = data.draw(fitting | st.integers(0, 400))
    with contextlib.suppress(MessageError):
        assert decode_raw(encoding, height, width, step, True, bytes(size)).shape == (height, width, 3)


# --- compressed

IMAGE = np.random.default_rng(1).integers(0, 256, (6, 4, 3), np.uint8)  # BGR


def encoded(extension: str, image: np.ndarray = IMAGE) -> bytes:
    return cv2.imencode(extension, image)[1].tobytes()


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_a_compressed_image_decodes_as_rosbags_image_does(extension):
    data = encoded(extension)
    expected = compressed_image_to_cvimage(types.SimpleNamespace(data=data, format="x"), "rgb8")
    np.testing.assert_array_equal(decode_compressed(data), expected)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.full((2, 2, 4), (30, 20, 10, 5), np.uint8), (10, 20, 30)),
        (np.full((2, 2), 7, np.uint8), (7, 7, 7)),
        (np.full((2, 2, 3), (0, 32896, 65535), np.uint16), (255, 128, 0)),
    ],
)
def test_png_of_any_depth_keeps_its_colours(image, expected):
    assert (decode_compressed(encoded(".png", image)) == expected).all()


@pytest.mark.parametrize(
    ("format", "swapped"), [("jpeg", False), ("rgb8; jpeg compressed bgr8", False), ("rgb8; png compressed rgb8", True)]
)
def test_the_format_field_selects_the_channel_order(format, swapped):
    assert (decode_compressed(encoded(".png"), format) == (IMAGE if swapped else IMAGE[..., ::-1])).all()


def test_the_exif_orientation_is_ignored():
    """As in image_transport: the mounting of the robot's camera defines the orientation."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: 90 degrees
    plain = encoded(".jpg")
    turned = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (4, 6, 3)
    np.testing.assert_array_equal(decode_compressed(turned), decode_compressed(plain))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(height: int, width: int) -> bytes:
    """Return a PNG whose header declares this size and that holds one row."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(10)))
        + chunk(b"IEND", b"")
    )


def jpeg(height: int, width: int) -> bytes:
    """Return a JPEG whose frame header declares this size."""
    data = bytearray(encoded(".jpg"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "begins with nothing, cannot be decoded; expected JPEG or PNG"),
        (b"GIF89a" + bytes(40), "begins with 47494638, cannot be decoded"),
        (encoded(".bmp"), "begins with 424d"),
        (png(40000, 40000), "image is 40000x40000 px, allowed 16777216 in total"),
        (png(0, 4), "image is empty: 0x4 px"),
        (jpeg(65500, 65500), "image is 65500x65500 px, allowed 16777216 in total"),
        (encoded(".jpg")[:60], "cannot be decoded"),
        (b"\xff\xd8\xff\xe0", "cannot be decoded"),
        (b"\xff\xd8\xff\x01" + encoded(".jpg")[2:], "JPEG cannot be decoded: no frame header before the image data"),
        (encoded(".jpg")[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 100, "it has more than 64 scans"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "it does not begin with its header"),
        (encoded(".png")[:20], "cannot be decoded"),
    ],
)
def test_an_unusable_compressed_image_is_rejected_with_the_reason(data, problem):
    with pytest.raises(MessageError, match=problem):
        decode_compressed(data, "jpeg")


@settings(deadline=None)
@given(
    st.sampled_from([".jpg", ".png"]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    st.integers(0, 2000),
)
def test_a_damaged_image_is_rejected_or_bounded(extension, damage, length):
    data = bytearray(encoded(extension))
    for at, value in damage:
        data[at % len(data)] = value
    with contextlib.suppress(MessageError):
        height, width, channels = decode_compressed(bytes(data[:length])).shape
        assert height * width <= MAX_PIXELS and channels == 3


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_random_bytes_are_rejected(data):
    with pytest.raises(MessageError, match="cannot be decoded"):
        decode_compressed(data, "jpeg")
