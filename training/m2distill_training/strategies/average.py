"""Weight interpolation: M2Distill, then the mean of the weights before and after the stage.

    saved = coefficient * learned + (1 - coefficient) * previous

It is WiSE-FT (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, arXiv 2109.01903), which
interpolates a pretrained network with its fine-tuned weights; here the pretrained one is the policy of the previous
stage. Both have the same beginning, so the loss along the line between them stays low if the stage was short. Floating
point statistics of a BatchNorm network are interpolated like weights.

The interpolation is that of the saved weights (the running average, if there is one), at the end of the stage and at
every point of its learning curve. The training itself does not depend on it. With all four terms at weight 0 it
interpolates experience replay, which forgets far more at the same loss on the new task (docs/benchmarks.md).
"""

import torch
from torch import Tensor

from m2distill_policy.models import Policy
from m2distill_training.strategies.configs import AverageConfig
from m2distill_training.strategies.m2distill import M2Distill


class Average(M2Distill):
    """M2Distill with interpolated weights."""

    Config = AverageConfig

    def __init__(self, config: AverageConfig):
        super().__init__(config)
        self.previous: dict[str, Tensor] = {}

    def begin_task(self, policy: Policy, previous: Policy | None) -> None:
        super().begin_task(policy, previous)
        self.previous = {} if previous is None else {name: x.detach() for name, x in previous.state_dict().items()}

    def saved_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        if not self.previous:
            return weights
        share = self.config.coefficient
        return {
            name: torch.lerp(self.previous[name], x.detach(), share) if x.is_floating_point() else x
            for name, x in weights.items()
        }
