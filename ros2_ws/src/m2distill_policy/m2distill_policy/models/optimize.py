"""Faster inference: the same function, with everything that does not depend on the observation computed in advance."""

import itertools
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from m2distill_policy.models.image_encoder import FilmBlock, ImageEncoder
from m2distill_policy.models.policy import Policy


class CachedLayer(nn.Module):
    """Layer that caches its last output, for inputs that rarely change, such as the sentence embedding."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self._cached_input: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the cached output if `x` equals the last input."""
        if self._cached_input is None or not torch.equal(x, self._cached_input):
            self._cached_input, self._cached_output = x.clone(), self.layer(x)
        return self._cached_output


class PackedConv(nn.Module):
    """Convolution with its weights already in the memory layout of oneDNN.

    oneDNN otherwise converts them at every call, a tenth of an encoder's time. The operators are those of torch's own
    compiler, and the output is equal bit for bit. Small inputs, which torch does not compute with oneDNN, use the usual
    convolution.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype):
        """Copy the weights of `conv`. `dtype` is the type of the arithmetic and of the output."""
        super().__init__()
        self._dtype = dtype
        self._geometry: Any = (conv.padding, conv.stride, conv.dilation)  # the stubs of the operators declare lists
        self._weight = conv.weight.detach().to(dtype)
        self._bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self._packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, C', H', W') in `dtype`."""
        x = x.to(self._dtype)
        padding, stride, dilation = self._geometry
        if self._packed is None:
            backend = torch._C._select_conv_backend(
                x, self._weight, self._bias, stride, padding, dilation, False, (0, 0), 1
            )
            if backend != torch._C._ConvBackend.Mkldnn:  # type: ignore[attr-defined]  # its stub has another name
                return F.conv2d(x, self._weight, self._bias, stride, padding, dilation)
            size = [1, *x.shape[1:]]  # without it, oneDNN chooses a layout that is four times as slow with AVX2 alone
            self._packed = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]  # nor its arguments
                self._weight.to_mkldnn(), *self._geometry, 1, size
            )
        return torch.ops.mkldnn._convolution_pointwise(x, self._packed, self._bias, *self._geometry, 1, "none", [], "")


def optimize_for_inference(policy: Policy, dtype: torch.dtype = torch.float32, backend: str = "torch") -> Policy:
    """Change a policy in place for fast inference, and return it. It must not be trained or saved afterwards.

    The policy is put in eval mode. Batch norms are folded into the convolutions before them, which is equal up to
    rounding. Convolutions are packed, or compiled by OpenVINO, and projections of the sentence embedding are cached.

    Args:
        policy: the policy to change.
        dtype: type of the convolutions' arithmetic.
        backend: "torch", or "openvino" for one sample and one step at a time.

    Raises:
        UserError: OpenVINO is not installed, or its result differs from torch's.
    """
    policy.eval()
    policy.text = CachedLayer(policy.text)
    image_encoders = [encoders.image_encoders for encoders in policy.encoder_sets()]
    if backend == "openvino":
        from m2distill_policy.models.openvino_encoder import OpenVinoEncoder

        for encoders in image_encoders:
            for i, camera in enumerate(policy.spec.cameras):
                encoder = cast(ImageEncoder, encoders[i])
                encoders[i] = OpenVinoEncoder(encoder, camera.height, camera.width, policy.spec.text_width, dtype)
        return policy
    for encoder in cast(Iterable[ImageEncoder], itertools.chain(*image_encoders)):
        fold_batch_norms(encoder)
        pack_convolutions(encoder, dtype)
        for block in cast(Iterable[FilmBlock], encoder.blocks):
            block.film = CachedLayer(block.film)
    return policy


def fold_batch_norms(encoder: ImageEncoder) -> None:
    """Fold batch norms into the convolutions of an encoder in eval mode, in place."""
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
    """Replace every convolution of a module by a PackedConv, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, PackedConv(child, dtype))
        else:
            pack_convolutions(child, dtype)
