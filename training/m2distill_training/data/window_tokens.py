"""Tokens of many windows from a fixed policy. Letters: W windows, T steps, F frames, D token width.

A token of a policy depends on one frame and the instruction, so every frame is encoded once, however many windows hold
it.
"""

import numpy as np
import torch
from torch import Tensor

from m2distill_policy.models import Policy
from m2distill_policy.models.batch import to_model_input
from m2distill_training.data.windows import Windows

FRAMES = 64  # encoded at a time


@torch.no_grad()
def window_tokens(policy: Policy, windows: Windows, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Return the tokens (W, T, D) float32 of all windows by name, in the order of `Policy.encode`.

    Args:
        policy: a policy in evaluation mode on `device`.
        windows: the windows; their frames are not augmented.
        device: where the tokens are needed.
    """
    frames = Windows(windows.subsets, 1)
    found = []
    for first in range(0, len(frames), FRAMES):
        batch = frames.gather(np.arange(first, min(first + FRAMES, len(frames))))
        inputs = to_model_input(batch["images"], batch["joint"], batch["gripper"], batch["text"], device)
        found.append({name: x[:, 0] for name, x in policy.encode(inputs).items()})
    places = torch.from_numpy(_frames_of(windows)).to(device)
    return {name: torch.cat([x[name] for x in found])[places] for name in found[0]}


def _frames_of(windows: Windows) -> np.ndarray:
    """Return (W, T) int64: the frames of every window, counted over all demos; the last one of a demo is repeated."""
    starts = np.arange(len(windows))
    ends = windows.windows_to[np.searchsorted(windows.windows_to, starts, side="right")]
    return np.minimum(starts[:, None] + np.arange(windows.length), ends[:, None] - 1)
