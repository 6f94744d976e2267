"""Decoders: each stage learns a transformer and a mixture head of its own on image encoders that are frozen.

The first stage learns the whole network. A later stage copies the decoder with the lowest loss on the first batch of
the new task, and learns the copy alone. An instruction chooses the decoder that learned the nearest text token. The
actions for earlier tasks cannot change, so nothing is replayed. The network grows by one decoder per stage, and a task
gains from earlier ones only by the frozen encoders and by the copy.

A network per task and a choice by relatedness are those of Aljundi, Chakravarty and Tuytelaars, "Expert Gate" (CVPR
2017, arXiv 1611.06194), which gates by autoencoders; task-specific parts on a frozen backbone are those of Liu et al.,
"TAIL" (ICLR 2024, arXiv 2310.05905), which adapts a large pretrained one. The division of this network is ours.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from m2distill_policy.models import Policy
from m2distill_policy.models.mixture_head import mixture
from m2distill_training.losses.bc import bc_loss
from m2distill_training.strategies.base import Samples, Strategy
from m2distill_training.strategies.m2distill import image_tokens
from m2distill_training.strategies.token_cache import TokenCache
from m2distill_training.utils.checks import ConfigError


class Decoders(Strategy):
    """Behaviour cloning of one more decoder per stage."""

    adds_decoders = True

    def __init__(self, config: Any):
        super().__init__(config)
        self.encoder: Policy | None = None  # the previous policy, which encodes images
        self.cache: TokenCache | None = None

    def begin_task(self, policy: Policy, previous: Policy | None) -> None:
        if previous is None:
            return
        if self.context is None or self.context.new_instructions is None:
            raise ValueError("decoders needs the instructions of all tasks, which the trainer sets")
        self.encoder = previous.eval().requires_grad_(False)
        policy.requires_grad_(False)
        for module in policy.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()  # its statistics stay those of the first stage
        source = int(torch.stack(self.losses(previous, self.context.first_batch())).argmin())
        known, new = self.context.instructions, self.context.new_instructions
        try:
            policy.add_decoder(known, new, source, self.own_encoders)
        except ValueError as error:
            raise ConfigError(f"{error}; reword the instruction of the new task") from None
        if self.context.constant_windows:  # not before: gradient steps may encode in another number format
            self.cache = TokenCache(self.context.constant_windows)

    def loss(self, policy: Policy, samples: Samples) -> dict[str, Tensor]:
        if self.encoder is None:
            return super().loss(policy, samples)
        bc = self.cloning(policy, len(policy.config.decoders) - 1, samples)
        return {"loss": bc, "bc": bc}

    def cloning(self, policy: Policy, decoder: int, samples: Samples) -> Tensor:
        """Return the loss of behaviour cloning of a decoder."""
        tokens = self.tokens(policy, decoder, samples)
        with torch.autocast(tokens.device.type, enabled=False):
            return bc_loss(mixture(*policy.decoder_statistics(decoder, tokens)), samples.action)

    @torch.no_grad()
    def losses(self, policy: Policy, samples: Samples) -> list[Tensor]:
        """Return the loss of each decoder of a policy on samples of the new task."""
        return [self.cloning(policy, number, samples) for number in range(max(1, len(policy.config.decoders)))]

    @torch.no_grad()
    def tokens(self, policy: Policy, decoder: int, samples: Samples) -> Tensor:
        """Return the tokens (B, T, N, D) of samples for a decoder of the policy: from the frozen encoders."""
        encoder = cast(Policy, self.encoder)
        found = encoder.encode_other(samples.inputs) | image_tokens(
            encoder, samples.inputs, self.cache, samples.windows
        )
        return torch.stack(tuple(found.values()), 2)
