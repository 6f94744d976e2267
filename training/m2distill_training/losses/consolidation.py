"""Penalty of EWC, a pure function of tensors."""

import torch
from torch import Tensor


def quadratic_penalty(weights: dict[str, Tensor], anchor: dict[str, Tensor], importance: dict[str, Tensor]) -> Tensor:
    """Return the sum over all weights of importance * (weight - anchor)^2, matched by name.

    LIBERO's EWC has no factor of 1/2 either. No gradient reaches anchor or importance.
    """
    return sum(
        ((importance[name] * (weight - anchor[name]).square()).sum() for name, weight in weights.items()),
        start=torch.zeros(()),
    )
