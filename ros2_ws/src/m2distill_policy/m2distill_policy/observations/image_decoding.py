"""Decode images of cameras and bags to (H, W, 3) uint8 RGB.

Needs only numpy and OpenCV, so a live topic and a recording are read by the same code. Input is not trusted: every
size is checked against the bytes that were received before memory of that size is allocated, and an image that cannot
be decoded raises MessageError with the reason. A node also uses cv_bridge for encodings that it decodes to the same
numbers (`ros/common/cv_bridge_decoding.py`), so that results never depend on it.
"""

import array
import struct
from dataclasses import dataclass

import cv2
import numpy as np

from m2distill_policy.errors import MessageError

Bytes = bytes | array.array | np.ndarray  # a buffer that numpy reads as uint8
MAX_PIXELS = 2**24  # 4096 x 4096, the largest camera of a PolicySpec
MAX_JPEG_SCANS = 64  # a progressive JPEG has about ten; the decoder processes the whole image in each scan


@dataclass(frozen=True)
class Encoding:
    """Memory layout of an image encoding, and OpenCV's code that converts it to RGB (None for RGB)."""

    channels: int
    sample_bytes: int
    to_rgb: int | None
    multiple: tuple[int, int] = (1, 1)  # height and width are multiples of these
    rows: tuple[int, int] = (1, 1)  # rows of bytes per row of pixels, as a fraction: colour planes follow below


_8_OR_16_BITS = {
    "rgb": (3, None),
    "bgr": (3, cv2.COLOR_BGR2RGB),
    "rgba": (4, cv2.COLOR_RGBA2RGB),
    "bgra": (4, cv2.COLOR_BGRA2RGB),
    "mono": (1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb": (1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr": (1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg": (1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg": (1, cv2.COLOR_BayerGRBG2RGB),
}
_UYVY = Encoding(2, 1, cv2.COLOR_YUV2RGB_UYVY, multiple=(1, 2))
_YUYV = Encoding(2, 1, cv2.COLOR_YUV2RGB_YUY2, multiple=(1, 2))
ENCODINGS: dict[str, Encoding] = {  # the names are those of sensor_msgs/image_encodings.hpp
    **{
        f"{name}{8 * size}": Encoding(channels, size, code)
        for size in (1, 2)
        for name, (channels, code) in _8_OR_16_BITS.items()
    },
    "uyvy": _UYVY,
    "yuv422": _UYVY,
    "yuyv": _YUYV,
    "yuv422_yuy2": _YUYV,
    "nv21": Encoding(1, 1, cv2.COLOR_YUV2RGB_NV21, multiple=(2, 2), rows=(3, 2)),
    # Not named in sensor_msgs, but in use
    "nv12": Encoding(1, 1, cv2.COLOR_YUV2RGB_NV12, multiple=(2, 2), rows=(3, 2)),
}


def decode_raw(encoding: str, height: int, width: int, step: int, big_endian: bool, data: Bytes) -> np.ndarray:
    """Decode the fields of a sensor_msgs/Image.

    Args:
        encoding: a key of ENCODINGS.
        height: rows of pixels.
        width: pixels per row.
        step: bytes per row, padding included.
        big_endian: byte order of 16-bit samples, which are scaled to 8 bits, 65535 to 255.
        data: the pixels.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        MessageError: the encoding is not supported, or the fields contradict each other.
    """
    layout, rows, row_bytes = check_raw(encoding, height, width, step, data)
    samples = np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(rows, step)[:, :row_bytes])
    if layout.sample_bytes == 2:
        samples = samples.view(">u2" if big_endian else "<u2").astype(np.uint16)
    return _to_rgb8(samples.reshape(rows, width, layout.channels), layout.to_rgb)


def check_raw(encoding: str, height: int, width: int, step: int, data: Bytes) -> tuple[Encoding, int, int]:
    """Return the layout of a raw image, its rows of bytes, and the bytes of a row without padding.

    Raises:
        MessageError: the encoding is not supported, or the fields contradict each other.
    """
    if encoding not in ENCODINGS:
        raise MessageError(f"image encoding {encoding!r} is not supported (allowed: {', '.join(ENCODINGS)})")
    layout = ENCODINGS[encoding]
    _check_size(height, width)
    if height % layout.multiple[0] or width % layout.multiple[1]:
        raise MessageError(
            f"image is {height}x{width} px, but {encoding} needs a height and a width that are "
            f"multiples of {layout.multiple[0]} and {layout.multiple[1]}"
        )
    row_bytes = width * layout.channels * layout.sample_bytes
    if step < row_bytes:
        raise MessageError(f"image step is {step} bytes, but {width} px of {encoding} take {row_bytes}")
    rows = height * layout.rows[0] // layout.rows[1]
    if len(data) != step * rows:
        raise MessageError(f"image has {len(data)} bytes, expected {step * rows}: {rows} rows of {step}")
    return layout, rows, row_bytes


def decode_compressed(data: Bytes, format: str = "") -> np.ndarray:
    """Decode a JPEG or PNG; an alpha channel is ignored.

    Args:
        data: content of the file.
        format: the field of sensor_msgs/CompressedImage. With "compressed rgb" the sender swapped red and blue, as the
            plugin of image_transport may do.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        MessageError: the data cannot be decoded, or the image is too large.
    """
    data = np.frombuffer(data, np.uint8)
    try:
        _check_size(*_compressed_size(data.tobytes()))
        samples = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except (cv2.error, struct.error, IndexError):
        samples = None
    if samples is None:
        raise MessageError(
            f"compressed image of {data.size} bytes, format {format!r}, cannot be decoded; expected JPEG or PNG"
        )
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    name = {1: "mono8", 3: "bgr8", 4: "bgra8"}[channels]
    if "compressed rgb" in format:
        name = name.replace("bgr", "rgb")
    return _to_rgb8(samples, ENCODINGS[name].to_rgb)


def _check_size(height: int, width: int) -> None:
    if height == 0 or width == 0:
        raise MessageError(f"image is empty: {height}x{width} px")
    if height * width > MAX_PIXELS:
        raise MessageError(
            f"image is {height}x{width} px, allowed {MAX_PIXELS} in total; reduce the camera's resolution"
        )


def _to_rgb8(samples_HWC: np.ndarray, to_rgb: int | None) -> np.ndarray:
    image = samples_HWC.copy() if to_rgb is None else cv2.cvtColor(samples_HWC, to_rgb)
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=255 / 65535)  # rounds to the nearest
    return image


def _compressed_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) from the header, which is the size that the decoder allocates.

    Raises:
        MessageError: the header is not of a JPEG or PNG that can be decoded.
        struct.error, IndexError: the header is truncated.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        if data[12:16] != b"IHDR":
            raise MessageError("PNG cannot be decoded: it does not begin with its header")
        width, height = struct.unpack_from(">II", data, 16)
        return height, width
    if not data.startswith(b"\xff\xd8"):
        raise MessageError(
            f"compressed image begins with {data[:4].hex() or 'nothing'}, cannot be decoded; expected JPEG or PNG"
        )
    if data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise MessageError(f"JPEG cannot be decoded: it has more than {MAX_JPEG_SCANS} scans")
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            return struct.unpack_from(">HH", data, at + 5)
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # marker without a length, not valid here
            break
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    raise MessageError("JPEG cannot be decoded: no frame header before the image data")
