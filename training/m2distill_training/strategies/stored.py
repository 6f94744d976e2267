"""M2Distill with stored mixtures: each replayed sample is compared with the policy that had just learned its task.

The last teacher has forgotten some of an earlier task, and a student of it learns what is left. Here the mixture of
every replayed window is stored from the checkpoint of the stage that learned its task (engine/stored_mixtures.py), and
the divergence on replayed samples is that from the stored mixture. The tokens have no such record: the last teacher
remains their reference. After a single stage both references are the same policy.

The stored mixtures are of the demonstrations as they are, while the student receives them augmented. This strategy is
ours.
"""

from typing import cast

import torch
from torch import Tensor

from m2distill_policy.models import Policy, PolicyOutput
from m2distill_policy.models.mixture_head import mixture
from m2distill_training.losses.distill import gaussians
from m2distill_training.strategies.configs import DistillConfig
from m2distill_training.strategies.m2distill import M2Distill, ShownSamples


class Stored(M2Distill):
    """M2Distill whose divergence on replayed samples is that from the stored mixtures."""

    def __init__(self, config: DistillConfig):
        super().__init__(config)
        self.mixtures: dict[str, Tensor] = {}

    def begin_task(self, policy: Policy, previous: Policy | None) -> None:
        super().begin_task(policy, previous)
        if self.teacher is None or "policy" not in self.weights:
            return
        if self.context is None or self.context.stored_mixtures is None:
            raise ValueError("stored needs the stored mixtures of the replayed demos, which the trainer provides")
        if self.context.replay is not None:
            self.mixtures = self.context.stored_mixtures()

    def teacher_output(self, shown: ShownSamples, rows: slice) -> PolicyOutput:
        output = super().teacher_output(shown, rows)
        first = max(rows.start, shown.n_current)  # of the replayed samples among `rows`
        if not self.mixtures or first >= rows.stop:
            return output
        ids = cast(Tensor, shown.replay_ids)[first - shown.n_current : rows.stop - shown.n_current]
        stored = {name: x[ids.to(x.device)] for name, x in self.mixtures.items()}
        parts, n = gaussians(output.dist), first - rows.start
        logits = torch.cat([output.dist.mixture_distribution.logits[:n], stored["logits"]])
        mean, std = torch.cat([parts.loc[:n], stored["mean"]]), torch.cat([parts.scale[:n], stored["std"]])
        return PolicyOutput(mixture(logits, mean, std), output.latents)
