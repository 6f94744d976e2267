"""PackNet (Mallya and Lazebnik 2018, arXiv 1711.05769) as LIBERO's PackNet.

Every stage learns with the free weights, frees the smallest of them in each layer, continues with the rest, and then
fixes what it kept.

Only the weights of convolutions and linear layers are packed. All else (biases, norms and their statistics) keeps its
initial values. After a stage the free weights are 0, and later stages change nothing else: the network
that serves a task is, bit for bit, the checkpoint of the stage that learned it, and each checkpoint serves only the
instructions of its own stage. PackNet must know which task it executes. Forgetting is impossible, but the capacity is
limited.
"""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from m2distill_policy.models import Policy
from m2distill_training.strategies.base import Strategy
from m2distill_training.strategies.configs import PackNetConfig

FREE, OURS, FIXED = 0, 1, 2  # states of a weight: freed for later stages, this stage's, an earlier stage's


class PackNet(Strategy):
    """One phase of learning, pruning, and one phase of retraining per stage."""

    Config = PackNetConfig
    remembers = True
    knows_all = False

    def __init__(self, config: PackNetConfig):
        super().__init__(config)
        self.phases = (1.0, config.retrain)

    def begin_task(self, policy: Policy, previous: Policy | None) -> None:
        weights = packed_weights(policy)
        policy.requires_grad_(False)
        for module in policy.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()  # its statistics stay as initialised
        for name, weight in weights.items():
            weight.requires_grad_(True)
            state = self.memory.get(name, torch.zeros_like(weight, dtype=torch.uint8))
            self.memory[name] = torch.where(state == FREE, OURS, FIXED).to(torch.uint8)

    def begin_phase(self, policy: Policy) -> None:
        """Free the smallest of this stage's weights."""
        for name, weight in packed_weights(policy).items():
            given_up = smallest(weight.detach().abs(), self.memory[name] == OURS, self.config.prune)
            self.memory[name][given_up] = FREE
            weight.data[given_up] = 0

    def update(self, policy: Policy, optimiser: Optimizer) -> None:
        """Update, then restore all other weights: weight decay and momentum move weights without a gradient too."""
        weights = packed_weights(policy)
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        optimiser.step()
        for name, weight in weights.items():
            weight.data.copy_(torch.where(self.memory[name] == OURS, weight.data, before[name]))


def packed_weights(policy: Policy) -> dict[str, Tensor]:
    """Return the weights of all convolutions and linear layers by name."""
    return {
        f"{name}.weight": module.weight
        for name, module in policy.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def smallest(size: Tensor, among: Tensor, share: float) -> Tensor:
    """Return a mask of the round(share * n) smallest of the n entries of `size` where `among` is true.

    Entries equal to the largest of them are included, as in LIBERO.
    """
    candidates = size[among]
    rank = round(share * len(candidates))
    if rank == 0:
        return torch.zeros_like(among)
    return among & (size <= candidates.kthvalue(rank).values)
