"""Tasks of a suite as a list, or as one image with both cameras' views of the first initial states."""

import textwrap
from pathlib import Path

import cv2
import numpy as np

from m2distill_policy.cameras import square_sizes
from m2distill_policy.utils.files import write_atomically
from m2distill_sim.assets import AssetSource
from m2distill_sim.env_factory import make_env
from m2distill_sim.suites import Task, initial_states

COLUMNS, VIEW_PX = 2, 176
LINE_PX, LINES, LINE_CHARS = 15, 2, 54  # of a caption: height of a line, lines, characters per line
SETTLE_STEPS = 20  # one second
JPEG_QUALITY = 88


def contact_sheet(tasks: tuple[Task, ...], assets: AssetSource) -> np.ndarray:
    """Return the views of every task side by side with its number and instruction, (H, W, 3) uint8 RGB."""
    cells = [_cell(task, assets) for task in tasks]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % COLUMNS)
    return np.concatenate([np.concatenate(cells[row : row + COLUMNS], axis=1) for row in range(0, len(cells), COLUMNS)])


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image (H, W, 3) uint8 RGB; the file is complete or absent."""
    content = cv2.imencode(path.suffix, image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    write_atomically(path, content)


def _cell(task: Task, assets: AssetSource) -> np.ndarray:
    cameras = square_sizes(VIEW_PX)
    with make_env(task.suite, task.index, assets, cameras) as env:
        views = env.reset(initial_states(task.suite, task.index)[0], settle_steps=SETTLE_STEPS).images
    caption = np.full((LINE_PX * LINES + 8, 2 * VIEW_PX, 3), 255, np.uint8)
    for number, line in enumerate(textwrap.wrap(f"{task.index}  {task.instruction}", LINE_CHARS)[:LINES]):
        cv2.putText(
            caption, line, (4, LINE_PX * (number + 1)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA
        )
    return np.concatenate([np.concatenate(list(views.values()), axis=1), caption])
