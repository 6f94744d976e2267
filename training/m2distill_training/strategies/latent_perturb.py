"""Perturbed samples on the tokens of frozen image encoders: the price of latent_replay for more answers.

Every sample is shown a second time, perturbed (strategies/perturb.py). Its views are new, so the frozen encoders,
without a backward pass, see them once for student and teacher together. This strategy is ours.
"""

import dataclasses
from typing import cast

import torch
from torch import Tensor

from m2distill_policy.models import Policy
from m2distill_training.strategies.base import Samples
from m2distill_training.strategies.configs import PerturbConfig
from m2distill_training.strategies.latent_replay import LatentReplay
from m2distill_training.strategies.m2distill import ShownSamples, rows_of
from m2distill_training.strategies.perturb import Perturbation


class LatentPerturb(LatentReplay):
    """LatentReplay, and all samples again, perturbed."""

    Config = PerturbConfig
    relabels = True

    def begin_task(self, policy: Policy, previous: Policy | None) -> None:
        super().begin_task(policy, previous)
        if self.teacher is not None:
            self.perturbation = Perturbation(self.config, self.context)

    def distillation_samples(self, samples: Samples) -> ShownSamples:
        shown, n = super().distillation_samples(samples), len(samples.action)
        both = self.perturbation(samples)
        again = self.image_tokens(rows_of(both.inputs, slice(n, None)))
        first = cast(dict[str, Tensor], shown.image_tokens)
        return dataclasses.replace(both, image_tokens={name: torch.cat([x, again[name]]) for name, x in first.items()})
