"""Loss of behaviour cloning. Letters: B batch, T steps, A action."""

import torch
from torch.distributions import Distribution


def bc_loss(dist: Distribution, action_BTA: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood of demonstrated actions, mean over B and T (LIBERO's reduction)."""
    return -dist.log_prob(action_BTA).mean()
