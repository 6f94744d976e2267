"""Filmstrip of a recorded episode: images of its first camera side by side in one JPEG, for the dashboard.

    python -m m2distill_policy.recording.filmstrip EPISODE

The output is the number of images in one byte, then the JPEG. It runs as a process of its own, because reading a bag
takes a second of a processor.
"""

import os
import sys
from pathlib import Path

import cv2
import numpy as np
from rosbags.highlevel import AnyReader

from m2distill_policy.observations.image_decoding import decode_compressed, decode_raw

FRAMES, HEIGHT_PX = 32, 96
NICENESS = 5  # added, so that nodes run first
RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


def filmstrip(episode: Path) -> list[np.ndarray]:
    """Return up to FRAMES images (HEIGHT_PX, width, 3) of the first camera, evenly spaced; none without a camera."""
    images: list[np.ndarray] = []
    with AnyReader([episode]) as reader:
        cameras = [c for c in reader.connections if c.msgtype in (RAW, COMPRESSED) and c.msgcount]
        if not cameras:
            return []
        camera = min(cameras, key=lambda connection: connection.topic)
        for i, (_, _, data) in enumerate(reader.messages([camera])):
            if len(images) < FRAMES and i >= len(images) * camera.msgcount / FRAMES:
                message = reader.deserialize(data, camera.msgtype)
                images.append(_small(_decode(message)))
    return images


def _decode(message) -> np.ndarray:
    if message.__msgtype__ == COMPRESSED:
        return decode_compressed(message.data, message.format)
    big_endian = bool(message.is_bigendian)
    return decode_raw(message.encoding, message.height, message.width, message.step, big_endian, message.data)


def _small(image_HWC: np.ndarray) -> np.ndarray:
    height, width = image_HWC.shape[:2]
    return cv2.resize(
        image_HWC, (max(1, width * HEIGHT_PX // height), HEIGHT_PX), interpolation=cv2.INTER_AREA
    )  # one episode has one size


def main() -> int:
    """Write count and strip to stdout; return the exit status."""
    os.nice(NICENESS)
    images = filmstrip(Path(sys.argv[1]))
    if not images:
        return 1
    _, data = cv2.imencode(".jpg", cv2.cvtColor(np.concatenate(images, axis=1), cv2.COLOR_RGB2BGR))
    sys.stdout.buffer.write(bytes([len(images)]) + data.tobytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
