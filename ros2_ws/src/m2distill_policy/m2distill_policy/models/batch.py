"""Convert numpy observations to the model's tensors: the only place that scales uint8 pixels to [0, 1].

Training and serving both use it.
"""

from collections.abc import Mapping

import numpy as np
import torch

from m2distill_policy.models import Batch


def to_model_input(
    images: Mapping[str, np.ndarray],
    joint: np.ndarray,
    gripper: np.ndarray,
    text: np.ndarray,
    device: torch.device | str = "cpu",
) -> Batch:
    """Return a batch of float32 tensors on `device`.

    Args:
        images: camera -> (B, T, H, W, 3) uint8, in model orientation.
        joint: (B, T, J) rad.
        gripper: (B, T, G) m.
        text: (B, L) sentence embeddings.
        device: device of the tensors.

    Returns:
        The batch; its images are (B, T, 3, H, W) in [0, 1], channels last in memory.
    """
    return Batch(
        images={
            name: torch.from_numpy(pixels).to(device).float().div_(255).permute(0, 1, 4, 2, 3)
            for name, pixels in images.items()
        },
        joint=torch.from_numpy(joint).to(device).float(),
        gripper=torch.from_numpy(gripper).to(device).float(),
        text=torch.from_numpy(text).to(device).float(),
    )
