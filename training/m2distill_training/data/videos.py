"""Video files: writing the images of many episodes, and reading those of one, exact to the frame, with ffmpeg."""

import errno
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread, Timer
from typing import IO

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from m2distill_policy.errors import DataError, UserError


@dataclass(frozen=True)
class Coding:
    """How images are encoded."""

    codec: str  # as players name it
    pixels: str  # ffmpeg's name of the pixel format
    options: tuple[str, ...]  # ffmpeg's


# Every second image is a key frame and none depends on a later one, so that single images are quickly decoded.
SMALL = Coding("h264", "yuv420p", ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-g", "2", "-bf", "0"))
LOSSLESS = Coding("h264", "gbrp", ("-c:v", "libx264rgb", "-qp", "0", "-g", "2", "-bf", "0"))


MOST_PIXELS = str(4096 * 4096)  # of an image that is decoded, as for compressed images on topics
PATIENCE_S = 600  # for one camera of an episode; the largest that import allows takes about a minute


@dataclass(frozen=True)
class Place:
    """Place of an episode's images."""

    file_number: int
    from_s: float
    to_s: float


class VideoFiles:
    """Writer of one camera's images, episode after episode; a new file begins after `limit_bytes`."""

    def __init__(self, path_of: Callable[[int], Path], coding: Coding, rate_hz: int, limit_bytes: int):
        self._path_of = path_of  # of a file's number
        self._coding, self._rate_hz, self._limit_bytes = coding, rate_hz, limit_bytes
        self._file_number, self._frames = 0, 0
        self._path: Path | None = None
        self._encoder: subprocess.Popen | None = None

    def add(self, frames: np.ndarray) -> Place:
        """Append (T, H, W, 3) uint8 RGB of constant size. Raises UserError if ffmpeg rejects them."""
        if self._encoder is not None and self._size() >= self._limit_bytes:
            self.close()
            self._file_number, self._frames = self._file_number + 1, 0
        if self._encoder is None:
            self._encoder = self._started(*frames.shape[1:3])
        assert self._encoder.stdin is not None  # a pipe
        try:
            self._encoder.stdin.write(frames.tobytes())
        except BrokenPipeError:
            self.close()  # raises with ffmpeg's message
            raise
        start = self._frames
        self._frames += len(frames)
        return Place(self._file_number, start / self._rate_hz, self._frames / self._rate_hz)

    def close(self) -> None:
        """Complete the file. Raises UserError with ffmpeg's message."""
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return
        _, messages = encoder.communicate()
        if encoder.returncode:
            raise UserError(f"{self._path}: the video could not be written: {_last_line(messages)}")

    def abandon(self) -> None:
        if self._encoder is not None:
            self._encoder.kill()
            self._encoder.communicate()
            self._encoder = None

    def _size(self) -> int:
        if self._path is None or not self._path.exists():  # ffmpeg creates it with the first images
            return 0
        return self._path.stat().st_size

    def _started(self, height: int, width: int) -> subprocess.Popen:
        if self._coding is SMALL and (height % 2 or width % 2):
            raise UserError(
                f"images are {width}x{height} px, and video of this kind needs even sides; export with --lossless"
            )
        self._path = self._path_of(self._file_number)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            [
                get_ffmpeg_exe(),
                "-v",
                "error",
                "-f",
                "rawvideo",
                "-pix_fmt",
                "rgb24",
                "-s",
                f"{width}x{height}",
                "-r",
                str(self._rate_hz),
                "-i",
                "-",
                *self._coding.options,
                "-y",
                f"file:{self._path}",  # a path with a colon is not a protocol
            ],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def read_frames(path: Path, from_s: float, count: int, rate_hz: float) -> Generator[np.ndarray]:
    """Yield `count` images (H, W, 3) uint8 RGB of any size, from the one at `from_s` on.

    The caller must close the generator, which ends ffmpeg. Raises DataError if there are fewer images, or if they take
    longer than PATIENCE_S.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; copy the dataset again, with its videos")
    start_s = max(from_s - 0.5 / rate_hz, 0.0)  # half way from the previous image: rounding cannot reach another
    found = 0
    with subprocess.Popen(
        _read_command(path, start_s, count),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as ffmpeg:
        assert ffmpeg.stdout is not None and ffmpeg.stderr is not None  # pipes
        messages: deque[bytes] = deque(maxlen=1)  # the last line; ffmpeg blocks unless all are read
        reader, watchdog = Thread(target=messages.extend, args=(ffmpeg.stderr,)), Timer(PATIENCE_S, ffmpeg.kill)
        try:
            reader.start()
            watchdog.start()
            while found < count and (image := _next_image(ffmpeg.stdout)) is not None:
                yield image
                found += 1
            if found < count and ffmpeg.wait() == -signal.SIGKILL:
                messages.append(f"ffmpeg was killed, as after {PATIENCE_S} s".encode())
        finally:
            watchdog.cancel()
            ffmpeg.kill()  # it does not always end by itself
            ffmpeg.stdout.close()  # ends the child of a wrapper script
            reader.join()
    if found < count:
        reason = f" ({_last_line(messages[0])})" if messages else ""
        raise DataError(
            f"{path} holds {found} images from {from_s:g} s on, expected {count}{reason}; it is "
            "truncated or another dataset's: copy it again"
        )


def _read_command(path: Path, start_s: float, count: int) -> list[str]:
    """Return the command that writes `count` images from `start_s` on as PPM to its output."""
    return [
        get_ffmpeg_exe(),
        "-v",
        "error",
        "-noautorotate",  # the images as they are stored, whatever a player would turn them to
        "-max_pixels",
        MOST_PIXELS,
        "-ss",
        f"{start_s:.6f}",
        "-f",
        "mp4",
        "-i",
        f"file:{path}",
        "-map",
        "0:v:0",
        "-frames:v",
        str(count),
        "-fps_mode",
        "passthrough",
        "-f",
        "image2pipe",
        "-c:v",
        "ppm",
        "-pix_fmt",
        "rgb24",
        "-",
    ]


def _next_image(ppm: IO[bytes]) -> np.ndarray | None:
    """Return the next image, None at the end."""
    _, size, depth = (ppm.readline() for _ in range(3))  # P6, width height, 255, then its pixels
    if not depth:
        return None
    width, height = map(int, size.split())
    pixels = ppm.read(height * width * 3)
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3) if len(pixels) == height * width * 3 else None


def _last_line(messages: bytes) -> str:
    lines = messages.decode(errors="replace").strip().splitlines()
    full = os.strerror(errno.ENOSPC)
    return full if full in " ".join(lines) else lines[-1] if lines else "no reason given"
