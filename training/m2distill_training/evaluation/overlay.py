"""One image of an episode's video: the views, the instruction, and the weights of the action mixture."""

import cv2
import numpy as np

from m2distill_policy.action import ActionSample

VIEW_PX = 256  # height of a view
LINE_PX = 32  # height of each of the two lines below the views
CHOSEN, OTHER, WHITE = (90, 220, 120), (120, 120, 120), (255, 255, 255)


def video_frame(images: dict[str, np.ndarray], instruction: str, sample: ActionSample | None) -> np.ndarray:
    """Return all views side by side, enlarged, above the instruction and the mixture of the action.

    The image is (H, W, 3) uint8 RGB with even sides, as video requires.
    """
    views = []
    for image in images.values():
        width = round(image.shape[1] * VIEW_PX / image.shape[0])
        views.append(cv2.resize(image, (width, VIEW_PX), interpolation=cv2.INTER_CUBIC))
    canvas = np.concatenate(views, axis=1)
    lines = np.zeros((2 * LINE_PX, canvas.shape[1], 3), np.uint8)
    _write(lines, instruction, 6, 20)
    if sample is None:
        _write(lines, "no command", 6, LINE_PX + 20)
    else:
        _draw_mixture(lines[LINE_PX:], sample)
    return np.concatenate([canvas, lines])[:, : canvas.shape[1] // 2 * 2]


def _draw_mixture(line: np.ndarray, sample: ActionSample) -> None:
    """Draw a column for each mode, as high as its weight, with the chosen one in colour, and then the numbers."""
    step, foot, height = 12, LINE_PX - 6, LINE_PX - 10
    for k, weight in enumerate(sample.weights):
        left = 6 + k * step
        cv2.rectangle(line, (left, foot - height), (left + step - 4, foot), OTHER, 1)
        if (top := round(weight * height)) > 0:
            cv2.rectangle(line, (left, foot - top), (left + step - 4, foot), CHOSEN if k == sample.mode else OTHER, -1)
    share = f" at {sample.weights[sample.mode]:.0%}" if sample.weights else ""
    _write(line, f"mode {sample.mode + 1}{share}, entropy {sample.entropy:.2f}", 14 + len(sample.weights) * step, 20)


def _write(area: np.ndarray, text: str, left: int, foot: int) -> None:
    """Write one line of text, small enough to fit."""
    (text_px, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    scale = min(0.5, (area.shape[1] - left - 6) / max(text_px, 1))
    cv2.putText(area, text, (left, foot), cv2.FONT_HERSHEY_SIMPLEX, scale, WHITE, 1, cv2.LINE_AA)
