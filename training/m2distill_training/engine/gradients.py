"""Gradients of single losses, summed over the parts of a batch like the gradient of their sum."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from m2distill_training.config import ConfigError


class TermGradients:
    """Sum of the gradients of some losses with respect to all parameters of a network.

    Args:
        network: the network.
        names: names of the losses; with none, nothing is computed.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]):
        self.names = tuple(names)
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        self._sums = {name: [torch.zeros_like(p) for p in self._parameters] for name in self.names}

    def add(self, losses: Mapping[str, Tensor], factor: float) -> None:
        """Add `factor` times the gradients of the losses of one part; their graph is kept."""
        for name in self.names:
            if name not in losses:
                raise ConfigError(
                    f"the strategy measures the gradient of {name!r}, but loss() returned {sorted(losses)}"
                )
            if losses[name].requires_grad:
                found = torch.autograd.grad(losses[name], self._parameters, retain_graph=True, allow_unused=True)
                for total, gradient in zip(self._sums[name], found, strict=True):
                    if gradient is not None:
                        total.add_(gradient, alpha=factor)

    def tensors(self) -> list[Tensor]:
        """Return the sums, to be added up over processes in place."""
        return [x for sums in self._sums.values() for x in sums]

    def norms(self) -> dict[str, float]:
        """Return the L2 norm of the gradient of each loss."""
        return {name: nn.utils.get_total_norm(sums).item() for name, sums in self._sums.items()}
