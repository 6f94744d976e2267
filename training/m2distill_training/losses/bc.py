"""Behaviour cloning. Letters: B batch, T steps, A action."""

import torch
from torch.distributions import Distribution


def bc_loss(dist: Distribution, action_BTA: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of the demonstrated actions, mean over B and all T positions (LIBERO's reduction)."""
    return -dist.log_prob(action_BTA).mean()
