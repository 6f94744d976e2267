"""Writer of an episode's images as an mp4 file that browsers play."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np

from m2distill_policy.utils.files import publish

MIN_HEIGHT_PX = 256  # smaller images are enlarged by repeating pixels


def write_video(path: Path, frames: Iterable[np.ndarray], rate_hz: float) -> None:
    """Write (H, W, 3) uint8 RGB frames as H.264 into an existing folder; the file is complete or absent."""
    temporary = path.with_name(f".{path.stem}.tmp.mp4")
    writer: Any = imageio.get_writer(temporary, fps=rate_hz, codec="libx264", macro_block_size=2)
    with writer:
        for frame in frames:
            scale = -(-MIN_HEIGHT_PX // frame.shape[0])
            writer.append_data(frame.repeat(scale, 0).repeat(scale, 1))
    publish(temporary, path)
