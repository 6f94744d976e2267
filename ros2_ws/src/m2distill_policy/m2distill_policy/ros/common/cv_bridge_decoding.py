"""Decoding of raw images by cv_bridge, for the encodings in which it gives the same numbers as our own code.

Builds of cv_bridge may not fit the installed numpy: one of PyPI raises, others crash the process. So before it is
imported here, a process of its own decodes a known image in every encoding and compares the results with those of
`observations/image_decoding.py`, which also reads recordings. Encodings that differ, and a cv_bridge that fails, are
left to that code.
"""

import array
import functools
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import Image

from m2distill_policy.errors import MessageError
from m2distill_policy.observations.image_decoding import ENCODINGS, check_raw, decode_raw
from m2distill_policy.ros.common import conversions

TRIAL_LIMIT_S = 30.0  # for the process that tries it
HEIGHT, WIDTH, PADDING = 8, 12, 4  # of the known image; its rows are padded


@dataclass(frozen=True)
class Bridge:
    """What cv_bridge may be used for; `report` is one line for the log, empty if it is not installed."""

    encodings: frozenset[str]
    report: str
    convert: Callable[[Image], np.ndarray] | None = None


@functools.cache
def bridge() -> Bridge:
    """Try cv_bridge at the first call, which takes about a second if it is installed."""
    if importlib.util.find_spec("cv_bridge") is None:
        return Bridge(frozenset(), "")
    equal, problem = _try()
    if problem or not equal:
        return Bridge(frozenset(), f"cv_bridge is not used: {problem or 'it decodes no known image as expected'}")
    import cv_bridge

    converter = cv_bridge.CvBridge()
    report = f"cv_bridge decodes images of {', '.join(sorted(equal))}; a known image of each was decoded as expected"
    return Bridge(frozenset(equal), report, lambda message: converter.imgmsg_to_cv2(message, "rgb8"))


def decoder() -> Callable[[Image], np.ndarray]:
    """Return the function that decodes raw images to (H, W, 3) uint8 RGB. It raises MessageError."""
    return _decode if bridge().convert else conversions.image_to_numpy


def _decode(message: Image) -> np.ndarray:
    found = bridge()
    if found.convert is None or message.encoding not in found.encodings or message.is_bigendian:  # the known one is not
        return conversions.image_to_numpy(message)
    check_raw(message.encoding, message.height, message.width, message.step, message.data)
    try:
        return np.ascontiguousarray(found.convert(message))
    except Exception as error:  # of cv_bridge or of OpenCV
        raise MessageError(f"cv_bridge cannot decode the image: {' '.join(str(error).split()):.200}") from None


def _try() -> tuple[list[str], str]:
    """Return the encodings that cv_bridge decodes as our code does, and why it cannot be used, if it fails."""
    command = [sys.executable, "-m", __name__]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=TRIAL_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return [], f"it did not answer within {TRIAL_LIMIT_S:g} s"
    if tried.returncode:
        lines = [line for line in tried.stderr.splitlines() if line.strip()]
        return [], f"it fails with status {tried.returncode}: {(lines or ['no message'])[-1]:.200}"
    return json.loads(tried.stdout.splitlines()[-1]), ""


def known_image(encoding: str) -> Image:
    """Return a message with known random pixels and padded rows."""
    layout = ENCODINGS[encoding]
    step = WIDTH * layout.channels * layout.sample_bytes + PADDING
    rows = HEIGHT * layout.rows[0] // layout.rows[1]
    pixels = np.random.default_rng(0).integers(0, 256, rows * step, np.uint8)
    return Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=step, data=array.array("B", pixels.tobytes()))


def _decodes_as_expected(convert: Callable[[Image, str], np.ndarray], encoding: str) -> bool:
    message = known_image(encoding)
    expected = decode_raw(encoding, HEIGHT, WIDTH, message.step, False, message.data)
    try:
        return np.array_equal(convert(message, "rgb8"), expected)
    except Exception:  # an encoding that it does not support
        return False


def main() -> None:
    """Print the encodings that cv_bridge decodes as our code does, as JSON."""
    import cv_bridge

    convert = cv_bridge.CvBridge().imgmsg_to_cv2
    print(json.dumps([encoding for encoding in ENCODINGS if _decodes_as_expected(convert, encoding)]))


if __name__ == "__main__":
    main()
