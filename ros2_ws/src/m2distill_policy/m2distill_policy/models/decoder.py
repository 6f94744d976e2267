"""Decoders: transformers and mixture heads that serve some instructions each.

All share the encoders of the policy, or each has its own for views, joints and gripper.

Letters: see models/policy.py; R instructions.
"""

import warnings
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from m2distill_policy.models.config import ModelConfig
from m2distill_policy.models.image_encoder import ImageEncoder
from m2distill_policy.models.mixture_head import MixtureHead
from m2distill_policy.models.transformer import TemporalTransformer
from m2distill_policy.spec import PolicySpec


class Encoders(Protocol):
    """Encoders of all inputs but the text: those of a policy, or a decoder's own."""

    image_encoders: nn.ModuleList  # in the order of the spec's cameras
    joint: nn.Linear
    gripper: nn.Linear


def projections(config: ModelConfig, spec: PolicySpec) -> tuple[nn.Linear, nn.Linear]:
    """Return the projections of joints and of the gripper to tokens."""
    joint = nn.Linear(len(spec.joint_names), config.width)
    with warnings.catch_warnings():  # an arm without a gripper has a constant token, the bias
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return joint, nn.Linear(len(spec.gripper_joint_names), config.width)


class Decoder(nn.Module):
    """From the tokens of an observation history to the numbers of a mixture."""

    def __init__(self, config: ModelConfig, spec: PolicySpec):
        super().__init__()
        if config.own_encoders:
            self.image_encoders = nn.ModuleList(ImageEncoder(config, spec.text_width) for _ in spec.cameras)
            self.joint, self.gripper = projections(config, spec)
        self.transformer = TemporalTransformer(config)
        self.head = MixtureHead(config)

    def forward(self, tokens_BTND: Tensor, steps: Tensor | int | None = None) -> tuple[Tensor, ...]:
        """Return what `statistics` returns."""
        return statistics(self.transformer, self.head, tokens_BTND, steps)


def statistics(
    transformer: TemporalTransformer, head: MixtureHead, tokens_BTND: Tensor, steps: Tensor | int | None = None
) -> tuple[Tensor, ...]:
    """Return the logits (B, T, K), means and standard deviations (B, T, K, A) of the mixture of every step.

    With `steps`, one number or one for each sample (B,), only those of that step: (B, K) and (B, K, A).
    """
    x = transformer(tokens_BTND)[:, :, 0]  # the text token carries the action
    if isinstance(steps, Tensor):
        x = x[torch.arange(len(x), device=x.device), steps]
    elif steps is not None:
        x = x[:, steps]
    return head.statistics(x)


def choose(found: Sequence[tuple[Tensor, ...]], numbers: Sequence[int], decoder_B: Tensor) -> tuple[Tensor, ...]:
    """Return for each sample what its decoder found.

    Args:
        found: Tensors of all samples by each decoder that some sample needs.
        numbers: Numbers of these decoders.
        decoder_B: Number of each sample's decoder.
    """
    chosen = found[0]
    for number, other in zip(numbers[1:], found[1:], strict=True):
        chosen = tuple(
            torch.where((decoder_B == number).view(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(other, chosen, strict=True)
        )
    return chosen
