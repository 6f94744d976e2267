"""Temporal transformer over N tokens per step, causal between steps: LIBERO's TransformerDecoder.

Letters: B batch, T steps, N tokens per step, S = T*N, D token width, h attention heads.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m2distill_policy.models.config import ModelConfig


class Attention(nn.Module):
    """Multi-head self-attention with a mask."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.heads * config.head_width, bias=False)
        self.out = nn.Linear(config.heads * config.head_width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BSD: Tensor, mask_SS: Tensor) -> Tensor:
        """(B, S, D) and mask (S, S) bool -> (B, S, D)."""
        B, S, _ = x_BSD.shape
        q, k, v = self.qkv(x_BSD).view(B, S, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, h, S, head_width)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_SS)
        return self.dropout(self.out(y.transpose(1, 2).flatten(2)))  # (B, S, D)


class Layer(nn.Module):
    """Pre-norm attention and MLP. DropPath acts per sample on the MLP branch only, as in LIBERO's code."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(config.width), Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.mlp_width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.mlp_width, config.width),
            nn.Dropout(config.dropout),
        )
        self.drop_path = config.dropout

    def forward(self, x_BSD: Tensor, mask_SS: Tensor) -> Tensor:
        """(B, S, D) and mask (S, S) bool -> (B, S, D)."""
        x_BSD = x_BSD + self.attention(self.attention_norm(x_BSD), mask_SS)
        branch = self.mlp(self.mlp_norm(x_BSD))
        if self.training and self.drop_path > 0:
            keep = 1 - self.drop_path
            branch = branch * (branch.new_empty(len(branch), 1, 1).bernoulli_(keep) / keep)
        return x_BSD + branch


class TemporalTransformer(nn.Module):
    """Stack of layers with a sinusoidal time code."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.position_base = config.position_base
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, tokens_BTND: Tensor) -> Tensor:
        """(B, T, N, D) -> (B, T, N, D); a token attends to all tokens of its own and of earlier steps."""
        B, T, N, D = tokens_BTND.shape
        code_TD, mask_SS = time_code_and_mask(T, N, D, self.position_base, tokens_BTND.device)
        x = (tokens_BTND + code_TD[:, None]).flatten(1, 2)  # (B, S, D)
        for layer in self.layers:
            x = layer(x, mask_SS)
        return x.view(B, T, N, D)


@functools.lru_cache(maxsize=64)  # computing them takes as long as one layer on one sample
def time_code_and_mask(steps: int, tokens: int, width: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the time code (T, D), and the mask (S, S) bool, True where a token may attend."""
    with torch.inference_mode(False):  # a later call may come from training
        step = torch.arange(steps, device=device).repeat_interleave(tokens)
        return time_code(steps, width, base, device), step[:, None] >= step[None, :]


def time_code(steps: int, width: int, base: float, device: torch.device) -> Tensor:
    """Return (T, D): the sines, then the cosines, of step x frequency."""
    angle = torch.arange(steps, device=device).float()[:, None] * time_frequencies(width, base).to(device)
    return torch.cat((angle.sin(), angle.cos()), -1)


def time_frequencies(width: int, base: float) -> Tensor:
    """Return (D/2,): base^(-2i/D) rad per step, starting at 1."""
    return 1.0 / base ** (torch.arange(0, width, 2).float() / width)
