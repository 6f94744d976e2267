"""What the loop asks of a strategy."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from m2distill_policy.models import Batch, Policy


@dataclass(frozen=True)
class Samples:
    """One gradient step's samples: rows [:n_current] are of the current task, the others replayed."""

    inputs: Batch
    action: Tensor  # (B, T, A)
    n_current: int


class Strategy(Protocol):
    uses_replay: bool

    def begin_task(self, previous: Policy | None) -> None:
        """`previous`: the policy as the step before left it, None before the first step; keep it, do not change it."""

    def loss(self, policy: Policy, samples: Samples) -> dict[str, Tensor]:
        """Scalars by name; "loss" is the one to minimise, the others are its unweighted terms."""
