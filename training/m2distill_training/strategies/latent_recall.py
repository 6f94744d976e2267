"""Recall on the tokens of frozen image encoders: what latent_replay saves, spent on the instructions that recall asks.

Every sample is shown a second time under an instruction drawn from all that the teacher knows (strategies/recall.py).
Image tokens depend on the instruction, so the frozen encoders, without a backward pass, see all samples of a gradient
step again under it. One pass serves student and teacher. This strategy is ours.
"""

import dataclasses
from typing import cast

import torch
from torch import Tensor

from m2distill_training.strategies.base import Samples
from m2distill_training.strategies.latent_replay import LatentReplay
from m2distill_training.strategies.m2distill import ShownSamples, rows_of
from m2distill_training.strategies.recall import recalled


class LatentRecall(LatentReplay):
    """LatentReplay, and all samples again under instructions of earlier tasks."""

    relabels = True

    def distillation_samples(self, samples: Samples) -> ShownSamples:
        shown, n = super().distillation_samples(samples), len(samples.action)
        both = self.shown_twice(samples)
        again = self.image_tokens(rows_of(both.inputs, slice(n, None)))
        first = cast(dict[str, Tensor], shown.image_tokens)
        return dataclasses.replace(both, image_tokens={name: torch.cat([x, again[name]]) for name, x in first.items()})

    def shown_twice(self, samples: Samples) -> ShownSamples:
        """Return the samples, and all of them again as the teacher is asked about them."""
        return recalled(self.context, samples)
