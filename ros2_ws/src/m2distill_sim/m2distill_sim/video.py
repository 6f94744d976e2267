"""Writer of an episode's images as an mp4 file that browsers play."""

import contextlib
import errno
import itertools
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from m2distill_policy.utils.files import publish, temporary_path

MIN_HEIGHT_PX = 256  # smaller images are enlarged by repeating pixels
ENCODING = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "25", "-v", "error")


def write_video(path: Path, frames: Iterable[np.ndarray], rate_hz: float) -> None:
    """Write (H, W, 3) uint8 RGB frames as H.264 into an existing folder; the file is complete or absent.

    Raises:
        OSError: the file cannot be written; the disk may be full.
    """
    remaining = iter(frames)
    first = next(remaining)
    scale = -(-MIN_HEIGHT_PX // first.shape[0])
    height, width = (scale * side for side in first.shape[:2])
    temporary = temporary_path(path).with_suffix(".mp4")
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{rate_hz:g}", "-i", "-")
    even = ("-vf", "scale=ceil(iw/2)*2:ceil(ih/2)*2")  # H.264 with subsampled colors has even sides
    try:
        temporary.touch()  # an error of the disk here has a number, ffmpeg's have none
        with subprocess.Popen(
            [get_ffmpeg_exe(), *source, *even, *ENCODING, "-y", f"file:{temporary}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as ffmpeg:
            assert ffmpeg.stdin  # it is a pipe
            with contextlib.suppress(BrokenPipeError):  # it has ended, and its messages give the reason
                for frame in itertools.chain([first], remaining):
                    ffmpeg.stdin.write(frame.repeat(scale, 0).repeat(scale, 1).tobytes())
            _, messages = ffmpeg.communicate()
        if ffmpeg.returncode:
            full = os.strerror(errno.ENOSPC)
            lines = messages.decode(errors="replace").strip().splitlines() or ["no reason given"]
            number = errno.ENOSPC if full.encode() in messages else errno.EIO
            raise OSError(number, full if number == errno.ENOSPC else lines[-1], str(path))
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
