"""A policy about to act: the same function, with what does not depend on the observation worked out beforehand."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from m2distill_policy.models.image_encoder import FilmBlock, ImageEncoder
from m2distill_policy.models.policy import Policy


class Remembered(nn.Module):
    """A layer that is asked the same again and again, as the instruction is: it works out an answer once."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self._asked: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self._asked is None or not torch.equal(x, self._asked):
            self._asked, self._answer = x.clone(), self.layer(x)
        return self._answer


def for_acting(policy: Policy) -> Policy:
    """The policy itself, changed for good: in eval mode, batch norms folded into the convolutions before them (equal
    but for rounding), the instruction's projections remembered. Its weights are not to be trained or saved any more."""
    policy.eval()
    for encoder in cast(Iterable[ImageEncoder], policy.image_encoders):
        fold_batch_norms(encoder)
        for block in cast(Iterable[FilmBlock], encoder.blocks):
            block.film = Remembered(block.film)
    policy.text = Remembered(policy.text)
    return policy


def fold_batch_norms(encoder: ImageEncoder) -> None:
    """For an encoder in eval mode that will not be trained any more; changes it."""
    pairs: list[tuple[nn.Module, str, str]] = [(encoder, "conv", "norm")]
    for block in encoder.blocks:
        pairs += [(block, "conv1", "norm1"), (block, "conv2", "norm2")]
        if isinstance(block.shortcut, nn.Sequential):
            pairs.append((block.shortcut, "0", "1"))
    for owner, conv, norm in pairs:
        if isinstance(getattr(owner, norm), nn.BatchNorm2d):
            setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm)))
            setattr(owner, norm, nn.Identity())
