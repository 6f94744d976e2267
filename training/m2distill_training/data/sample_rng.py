"""Random numbers that belong to samples.

A gradient step's batch may be learned in parts, in one process or in several. So that this changes nothing but the
order of additions, every part draws for the whole batch, from the same seed, and takes the rows of its own samples.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class SampleRng:
    """SampleRng for the samples `rows` (n,) of a batch of `total`. Calls are to come in the same order in every part."""

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
        """(n, *shape) float32 in [0, 1), on the CPU."""
        return torch.rand(self.total, *shape, generator=self._generator)[self.rows]

    def normal(self, *shape: int) -> Tensor:
        """(n, *shape) float32 of the standard normal distribution, on the CPU."""
        return torch.randn(self.total, *shape, generator=self._generator)[self.rows]

    def integers(self, end: int, *shape: int) -> Tensor:
        """(n, *shape) int64 in 0 .. end - 1, on the CPU."""
        return torch.randint(0, end, (self.total, *shape), generator=self._generator)[self.rows]
