"""Picture augmentation: one draw per sample, shared by its views and its T frames (LIBERO's ImgColorJitterGroupAug and
TranslationAug). Letters: B batch, T steps, H W pixels.

Ours, for speed: brightness, saturation and hue are one 3 x 3 matrix per sample, hue a rotation in the YIQ plane, their
order fixed and the result clamped once; torchvision turns hue in HSV, shuffles the order and clamps in between.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from m2distill_training.config import AugmentConfig
from m2distill_training.draws import Draws

_GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
_YIQ = torch.tensor([_GRAY, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])


def augment(images: dict[str, Tensor], config: AugmentConfig, draws: Draws) -> dict[str, Tensor]:
    """{camera: (B, T, 3, H, W) float32 in [0, 1]} -> the same shapes and range."""
    if config.color > 0:
        matrix_B33, contrast_B = _draw_colors(config, draws)
        images = {name: _recolor(x, matrix_B33.to(x.device), contrast_B.to(x.device)) for name, x in images.items()}
    if config.crop_pad_px > 0:
        offsets = draws.integers(2 * config.crop_pad_px + 1, 2).tolist()
        images = {name: _shift(x, config.crop_pad_px, offsets) for name, x in images.items()}
    return images


def _draw_colors(config: AugmentConfig, draws: Draws) -> tuple[Tensor, Tensor]:
    """A colour matrix (B, 3, 3) and a contrast factor (B,); identity and 1 for the samples left alone."""
    strength = config.color * (draws.uniform() < config.color_probability)
    brightness, contrast, saturation, turn = (2 * draws.uniform(4).T - 1) * strength
    angle = turn * 2 * math.pi
    rotation = torch.zeros(len(strength), 3, 3)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 1, 2], rotation[:, 2, 1] = -angle.sin(), angle.sin()
    rotation[:, 1:] *= (1 + saturation)[:, None, None]  # scaling the colour plane about gray is saturation
    return torch.linalg.inv(_YIQ) @ rotation @ _YIQ * (1 + brightness)[:, None, None], 1 + contrast


def _recolor(x: Tensor, matrix_B33: Tensor, contrast_B: Tensor) -> Tensor:
    x = torch.einsum("bij,btjhw->btihw", matrix_B33, x)
    gray = torch.tensor(_GRAY, device=x.device)[:, None, None]
    mean = (x * gray).sum(2).mean((-2, -1))[:, :, None, None, None]  # (B, T, 1, 1, 1), per frame as torchvision does
    return torch.lerp(mean, x, contrast_B[:, None, None, None, None]).clamp_(0, 1)


def _shift(x: Tensor, pad: int, offsets: list[list[int]]) -> Tensor:
    """Replicate-pad by `pad` and cut back to size at each sample's (row, column) offset in 0 .. 2 pad."""
    H, W = x.shape[-2:]
    padded = F.pad(x.flatten(0, 1), (pad,) * 4, mode="replicate").unflatten(0, x.shape[:2])
    return torch.stack([p[..., row:row + H, col:col + W] for p, (row, col) in zip(padded, offsets, strict=True)])
