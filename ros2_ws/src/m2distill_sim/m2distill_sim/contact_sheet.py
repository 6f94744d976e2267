"""The tasks of a suite, as a list or as one image: what both cameras see at the first initial state."""

import textwrap
from pathlib import Path

import cv2
import numpy as np

from m2distill_policy.utils.files import write_whole
from m2distill_sim.assets import AssetSource
from m2distill_sim.env_factory import make_env
from m2distill_sim.suites import Task, initial_states

COLUMNS, VIEW_PX = 2, 176
LINE_PX, LINES, LETTERS = 15, 2, 54  # of a caption: height of a line, lines, letters in a line
SETTLE_STEPS = 20  # one second
JPEG_QUALITY = 88


def contact_sheet(tasks: tuple[Task, ...], assets: AssetSource) -> np.ndarray:
    """(H, W, 3) uint8 RGB: both views of every task beside each other, its number and instruction below."""
    cells = [_cell(task, assets) for task in tasks]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % COLUMNS)
    return np.concatenate([np.concatenate(cells[row : row + COLUMNS], axis=1) for row in range(0, len(cells), COLUMNS)])


def write_image(path: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB; the file appears whole or not at all."""
    content = cv2.imencode(path.suffix, image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    write_whole(path, content)


def _cell(task: Task, assets: AssetSource) -> np.ndarray:
    cameras = {"agentview": (VIEW_PX, VIEW_PX), "wrist": (VIEW_PX, VIEW_PX)}
    with make_env(task.suite, task.index, assets, cameras) as env:
        views = env.reset(initial_states(task.suite, task.index)[0], settle_steps=SETTLE_STEPS).images
    caption = np.full((LINE_PX * LINES + 8, 2 * VIEW_PX, 3), 255, np.uint8)
    for number, line in enumerate(textwrap.wrap(f"{task.index}  {task.instruction}", LETTERS)[:LINES]):
        cv2.putText(
            caption, line, (4, LINE_PX * (number + 1)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA
        )
    return np.concatenate([np.concatenate(list(views.values()), axis=1), caption])
