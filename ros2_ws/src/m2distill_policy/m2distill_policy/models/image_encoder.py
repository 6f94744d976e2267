"""Image encoder: a ResNet with FiLM, a spatial softmax and a projection to one token per image.

This is LIBERO's ResnetEncoder.

Letters: B batch, T steps, n = B*T, C channels, H W pixels or cells, L text width, D token width, P keypoints.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2distill_policy.models.config import GROUP_CHANNELS, ModelConfig


class GroupNorm(nn.GroupNorm):
    """Group norm in float32, also under autocast: the bfloat16 kernel of a CPU takes four times as long."""

    def forward(self, h: Tensor) -> Tensor:
        """(n, C, H, W) -> the same shape and dtype."""
        with torch.autocast(h.device.type, enabled=False):
            return super().forward(h.float()).to(h.dtype)


def make_norm(kind: str, channels: int) -> nn.Module:
    """Return a batch norm or a group norm, as ModelConfig.norm names it."""
    return nn.BatchNorm2d(channels) if kind == "batch" else GroupNorm(max(1, channels // GROUP_CHANNELS), channels)


def conv(channels_in: int, channels_out: int, kernel: int, stride: int) -> nn.Conv2d:
    """Return a convolution without bias, because a norm follows, with the initialisation of torchvision's ResNet."""
    layer = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)
    if not layer.weight.is_meta:  # without content; there torch would import its compiler, 0.9 s of CPU
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class FilmBlock(nn.Module):
    """Basic block of ResNet, then h <- (1 + gamma) h + beta, with beta and gamma linear in the sentence embedding."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: str, text_width: int):
        super().__init__()
        self.conv1, self.norm1 = conv(channels_in, channels_out, 3, stride), make_norm(norm, channels_out)
        self.conv2, self.norm2 = conv(channels_out, channels_out, 3, 1), make_norm(norm, channels_out)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and channels_in == channels_out
            else nn.Sequential(conv(channels_in, channels_out, 1, stride), make_norm(norm, channels_out))
        )
        self.film: nn.Module = nn.Linear(text_width, 2 * channels_out)

    def forward(self, h: Tensor, text_BL: Tensor) -> Tensor:
        """(B*T, C, H, W) and text (B, L) -> (B*T, C', H', W')."""
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(h)))))
        h = F.relu(residual + self.shortcut(h))
        beta, gamma = self.film(text_BL).repeat_interleave(len(h) // len(text_BL), 0)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(beta, 1 + gamma, h)


class ImageEncoder(nn.Module):
    """Encoder of one camera, conditioned on the sentence embedding."""

    def __init__(self, config: ModelConfig, text_width: int):
        super().__init__()
        self.conv = conv(3, config.stem_width, config.stem_kernel, config.stem_stride)
        self.norm = make_norm(config.norm, config.stem_width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if config.stem_pool else nn.Identity()
        blocks, channels = [], config.stem_width
        for stage in config.stages:
            for i in range(stage.blocks):
                stride = stage.stride if i == 0 else 1
                blocks.append(FilmBlock(channels, stage.width, stride, config.norm, text_width))
                channels = stage.width
        self.blocks = nn.ModuleList(blocks)
        self.heatmaps = nn.Conv2d(channels, config.keypoints, 1)
        self.project = nn.Linear(2 * config.keypoints, config.width)

    def forward(self, images_BTCHW: Tensor, text_BL: Tensor) -> Tensor:
        """(B, T, 3, H, W) float32 in [0, 1] and text (B, L) -> tokens (B, T, D) float32."""
        B, T = images_BTCHW.shape[:2]
        h = self.convolve(images_BTCHW.flatten(0, 1).contiguous(memory_format=torch.channels_last), text_BL)
        # bfloat16 resolves at best 1/256 of the image, and its sums lose more, so the rest is in full precision.
        # The softmax needs planes, and half the bytes are rearranged before the conversion.
        with torch.autocast(h.device.type, enabled=False):
            return self.project(spatial_softmax(h.contiguous().float())).view(B, T, -1)

    def convolve(self, images_nCHW: Tensor, text_BL: Tensor) -> Tensor:
        """(n, 3, H, W) and text (B, L) -> heatmaps (n, P, H', W') in the dtype of the convolutions."""
        h = F.relu(self.pool(self.norm(self.conv(images_nCHW))))  # pooling first leaves less to rectify
        for block in self.blocks:
            h = block(h, text_BL)
        return self.heatmaps(h)


def spatial_softmax(heatmaps: Tensor) -> Tensor:
    """(n, P, H, W) -> (n, 2P): the expected row of every keypoint, then every expected column, in [-1, 1].

    LIBERO names the rows x and the columns y, because its meshgrid is indexed by row; the order is the same.
    """
    n, P, H, W = heatmaps.shape
    weights = heatmaps.flatten(2).softmax(-1).view(n, P, H, W)
    rows = torch.linspace(-1, 1, H, device=heatmaps.device)
    columns = torch.linspace(-1, 1, W, device=heatmaps.device)
    return torch.cat((weights.sum(3) @ rows, weights.sum(2) @ columns), 1)
