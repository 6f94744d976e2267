"""Random numbers of samples.

The batch of a gradient step may be learned in parts, in one process or in several. Every part draws the numbers of the
whole batch from the same seed and takes the rows of its own samples. Only the order of additions then differs.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class SampleRng:
    """Generator for the samples `rows` (n,) of a batch of `total`. Every part must make the same calls in order."""

    seed: int
    rows: Tensor  # (n,) int64
    total: int
    _generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "_generator", torch.Generator().manual_seed(self.seed))

    @staticmethod
    def of_whole_batch(seed: int, total: int) -> "SampleRng":
        return SampleRng(seed, torch.arange(total), total)

    def uniform(self, *shape: int) -> Tensor:
        """Return (n, *shape) float32 in [0, 1), on the CPU."""
        return torch.rand(self.total, *shape, generator=self._generator)[self.rows]

    def normal(self, *shape: int) -> Tensor:
        """Return (n, *shape) float32 of the standard normal distribution, on the CPU."""
        return torch.randn(self.total, *shape, generator=self._generator)[self.rows]

    def integers(self, end: int, *shape: int) -> Tensor:
        """Return (n, *shape) int64 in 0 .. end - 1, on the CPU."""
        return torch.randint(0, end, (self.total, *shape), generator=self._generator)[self.rows]
