"""What EWC asks of the weights. Pure function of tensors."""

import torch
from torch import Tensor


def quadratic_penalty(weights: dict[str, Tensor], anchor: dict[str, Tensor], importance: dict[str, Tensor]) -> Tensor:
    """Sum over all weights of importance * (weight - anchor)^2, the sets taken name by name (LIBERO's EWC, which has no
    factor of 1/2). No gradient reaches anchor or importance."""
    return sum(
        ((importance[name] * (weight - anchor[name]).square()).sum() for name, weight in weights.items()),
        start=torch.zeros(()),
    )
