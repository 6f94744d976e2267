"""A policy about to act: the same function, with what does not depend on the observation worked out beforehand."""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from m2distill_policy.models.image_encoder import FilmBlock, ImageEncoder
from m2distill_policy.models.policy import Policy


class CachedLayer(nn.Module):
    """A layer that is asked the same again and again, as the instruction is: it works out an answer once."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self._asked: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self._asked is None or not torch.equal(x, self._asked):
            self._asked, self._answer = x.clone(), self.layer(x)
        return self._answer


class PackedConv(nn.Module):
    """A convolution with its weights in the order that oneDNN wants, which it otherwise finds anew at every call, a
    tenth of an encoder's time. By the operators of torch's own compiler; what comes out is equal, bit for bit. Small
    inputs, which torch does not give to oneDNN, are left as they are. `dtype` is that of the arithmetic and of what
    comes out."""

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype):
        super().__init__()
        self._dtype = dtype
        self._geometry: Any = (conv.padding, conv.stride, conv.dilation)  # the operators' stubs want lists
        self._weight = conv.weight.detach().to(dtype)
        self._bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self._packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self._dtype)
        padding, stride, dilation = self._geometry
        if self._packed is None:
            backend = torch._C._select_conv_backend(
                x, self._weight, self._bias, stride, padding, dilation, False, (0, 0), 1
            )
            if backend != torch._C._ConvBackend.Mkldnn:  # type: ignore[attr-defined]  # its stub has another name
                return F.conv2d(x, self._weight, self._bias, stride, padding, dilation)
            self._packed = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]  # nor its arguments
                self._weight.to_mkldnn(), *self._geometry, 1
            )
        return torch.ops.mkldnn._convolution_pointwise(x, self._packed, self._bias, *self._geometry, 1, "none", [], "")


def optimize_for_inference(policy: Policy, dtype: torch.dtype = torch.float32) -> Policy:
    """The policy itself, changed for good: in eval mode, batch norms folded into the convolutions before them (equal
    but for rounding), convolutions packed, in `dtype`, the instruction's projections remembered. Its weights are not to
    be trained or saved any more."""
    policy.eval()
    for encoder in cast(Iterable[ImageEncoder], policy.image_encoders):
        fold_batch_norms(encoder)
        pack_convolutions(encoder, dtype)
        for block in cast(Iterable[FilmBlock], encoder.blocks):
            block.film = CachedLayer(block.film)
    policy.text = CachedLayer(policy.text)
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


def pack_convolutions(module: nn.Module, dtype: torch.dtype) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, PackedConv(child, dtype))
        else:
            pack_convolutions(child, dtype)
