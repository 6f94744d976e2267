"""Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv 1612.00796) as LIBERO's EWC.

A quadratic penalty holds each weight near its earlier value, in proportion to its diagonal Fisher information F.

    loss = bc + weight * sum F (p - p_previous)^2        F <- decay * F + F of the stage just learned

F is LIBERO's estimate: the mean over one epoch's batches of the squared gradient of the batch's mean log-likelihood.
One summed F serves all earlier tasks. In contrast to LIBERO, F is computed in evaluation mode and in full precision,
because the penalty protects the policy as it runs on the robot.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from m2distill_policy.models import Policy
from m2distill_training.losses.bc import bc_loss
from m2distill_training.losses.consolidation import quadratic_penalty
from m2distill_training.strategies.base import Samples, Strategy
from m2distill_training.strategies.configs import EwcConfig


class Ewc(Strategy):
    """Behaviour cloning with the quadratic penalty; `memory` holds F."""

    Config = EwcConfig
    remembers = True

    def __init__(self, config: EwcConfig):
        super().__init__(config)
        self.anchor: dict[str, Tensor] = {}

    def begin_task(self, policy: Policy, previous: Policy | None) -> None:
        if previous is not None:
            self.anchor = {name: p.detach() for name, p in previous.named_parameters()}

    def loss(self, policy: Policy, samples: Samples) -> dict[str, Tensor]:
        losses = super().loss(policy, samples)
        if not self.anchor:
            return losses
        penalty = quadratic_penalty(dict(policy.named_parameters()), self.anchor, self.memory)
        return {**losses, "loss": losses["bc"] + self.config.weight * penalty, "ewc": penalty}

    def end_task(self, policy: Policy, epoch: Iterable[Samples]) -> None:
        policy.eval()
        parameters = dict(policy.named_parameters())
        fisher = {name: torch.zeros_like(p) for name, p in parameters.items()}
        batches = 0
        for samples in epoch:
            loss = bc_loss(policy(samples.inputs).dist, samples.action)
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            for total, gradient in zip(fisher.values(), gradients, strict=True):
                total.addcmul_(gradient, gradient)
            batches += 1
        self.memory = {
            name: total / batches + self.config.decay * self.memory.get(name, 0) for name, total in fisher.items()
        }
