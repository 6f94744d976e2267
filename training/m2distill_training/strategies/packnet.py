"""PackNet (Mallya and Lazebnik 2018, arXiv 1711.05769) as LIBERO's PackNet: every step learns with the weights that are
still free, gives up the smallest of them in each layer, learns on with the rest, and fixes what it kept for ever.

Only the weights of convolutions and linear layers are packed. All else (biases, norms and their statistics) stays as
the network was initialised. After a step the free weights are 0, and later steps change nothing else: so the network
that serves a task is, bit for bit, the checkpoint of the step that learned it, and each checkpoint obeys the
instructions of its own step alone. PackNet has to be told which task it is doing; forgetting is impossible, capacity
runs out.
"""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from m2distill_policy.models import Policy
from m2distill_training.strategies.base import Strategy
from m2distill_training.strategies.configs import PackNetConfig

FREE, OURS, FIXED = 0, 1, 2  # states of a weight: given up for later steps, this step's, an earlier step's


class PackNet(Strategy):
    """PackNet: every stage owns a share of the weights."""

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
        """Give up the smallest of this step's weights."""
        for name, weight in packed_weights(policy).items():
            given_up = smallest(weight.detach().abs(), self.memory[name] == OURS, self.config.prune)
            self.memory[name][given_up] = FREE
            weight.data[given_up] = 0

    def update(self, policy: Policy, optimiser: Optimizer) -> None:
        """Weight decay and momentum would move weights without a gradient too: those not ours are put back."""
        weights = packed_weights(policy)
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        optimiser.step()
        for name, weight in weights.items():
            weight.data.copy_(torch.where(self.memory[name] == OURS, weight.data, before[name]))


def packed_weights(policy: Policy) -> dict[str, Tensor]:
    return {
        f"{name}.weight": module.weight
        for name, module in policy.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def smallest(size: Tensor, among: Tensor, share: float) -> Tensor:
    """Mask of the round(share * n) smallest of the n entries of `size` where `among`, with ties of the largest of them
    (LIBERO's rank, at which equal values go together)."""
    candidates = size[among]
    rank = round(share * len(candidates))
    if rank == 0:
        return torch.zeros_like(among)
    return among & (size <= candidates.kthvalue(rank).values)
