"""Image augmentation: one change per sample, shared by its views and its T frames.

The ranges are those of LIBERO's ImgColorJitterGroupAug and TranslationAug, which are torchvision's ColorJitter and
robomimic's crop. For speed the colour changes have a fixed order: brightness, contrast, saturation, hue. The first
three are one 3 x 3 matrix and a constant per sample, clamped once; torchvision shuffles the order and clamps in
between. Letters: B batch, T steps, H W pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from m2distill_training.config import AugmentConfig
from m2distill_training.data.sample_rng import SampleRng

_GRAY = torch.tensor([0.299, 0.587, 0.114])  # ITU-R BT.601 luma


def augment(images: dict[str, Tensor], config: AugmentConfig, rng: SampleRng) -> dict[str, Tensor]:
    """Augment {camera: (B, T, 3, H, W) float32 in [0, 1]}; shapes and range remain."""
    if config.color > 0:
        colors_B4 = _draw_colors(config, rng)
        images = {name: _recolor(x, colors_B4.to(x.device)) for name, x in images.items()}
    if config.crop_pad_px > 0:
        offsets = rng.integers(2 * config.crop_pad_px, 2).tolist()  # as robomimic's crop, which never draws the last
        images = {name: shift(x, config.crop_pad_px, offsets) for name, x in images.items()}
    return images


def _draw_colors(config: AugmentConfig, rng: SampleRng) -> Tensor:
    """(B, 4): factors of brightness, contrast and saturation, and turns of hue; 1, 1, 1, 0 for samples left alone."""
    strength = config.color * (rng.uniform() < config.color_probability)
    return (2 * rng.uniform(4) - 1) * strength[:, None] + torch.tensor([1.0, 1.0, 1.0, 0.0])


def _recolor(x: Tensor, colors_B4: Tensor) -> Tensor:
    brightness, contrast, saturation, turn = colors_B4.T
    gray = _GRAY.to(x.device)
    unit = torch.eye(3, device=x.device)
    matrix_B33 = (contrast * brightness)[:, None, None] * torch.lerp(gray.expand(3, 3), unit, saturation[:, None, None])
    mean_BT = x.mean((-2, -1)) @ gray  # per frame, as torchvision does
    constant_BT = ((1 - contrast) * brightness)[:, None] * mean_BT
    x = torch.einsum("bij,btjhw->btihw", matrix_B33, x).add_(constant_BT[:, :, None, None, None]).clamp_(0, 1)
    for sample, turns in zip(x, turn.tolist(), strict=True):  # one at a time: its planes stay in a CPU's cache
        if turns:
            _turn_hue(sample, turns)
    return x


def _turn_hue(x: Tensor, turns: float) -> None:
    """Change the images x (T, 3, H, W) in place: hue in the HSV hexagon, in turns; saturation and value stay."""
    red, green, blue = x.unbind(1)
    value, least = x.amax(1), x.amin(1)
    chroma = value - least
    per_chroma = chroma.clamp(min=1e-6).reciprocal_()
    hue = torch.where(
        value == red,
        (green - blue).mul_(per_chroma),
        torch.where(value == green, (blue - red).mul_(per_chroma).add_(2), (red - green).mul_(per_chroma).add_(4)),
    )  # in sixths of a turn, from -1 to 5
    hue += 6 * turns
    for channel, origin in enumerate((5.0, 3.0, 1.0)):  # red, green, blue: v - c max(0, min(k, 4 - k, 1)), k mod 6
        k = (hue + origin).remainder_(6)
        torch.addcmul(value, torch.minimum(k, 4 - k).clamp_(0, 1), chroma, value=-1, out=x[:, channel])


def shift(x: Tensor, pad: int, offsets: list[list[int]]) -> Tensor:
    """Return images that are shifted by up to `pad` pixels; the border is replicated.

    Args:
        x: (B, T, C, H, W) images.
        pad: pixels of border on each side.
        offsets: of each sample, the row and column in 0 .. 2 pad of the bordered image that becomes its corner.
    """
    H, W = x.shape[-2:]
    padded = F.pad(x.flatten(0, 1), (pad,) * 4, mode="replicate").unflatten(0, x.shape[:2])
    return torch.stack([p[..., row : row + H, col : col + W] for p, (row, col) in zip(padded, offsets, strict=True)])
