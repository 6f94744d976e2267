"""What the loop asks of a strategy. The base class is plain behaviour cloning; a strategy overrides what it does
otherwise.

One object serves one task step. What goes from one step to the next is the policy and `memory`: both have a size that
does not depend on how many tasks have been learned.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.optim import Optimizer

from m2distill_policy.models import Batch, Policy
from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.losses.bc import bc_loss


@dataclass(frozen=True)
class Samples:
    """One gradient step's samples: rows [:n_current] are of the current task, the others replayed."""

    inputs: Batch
    action: Tensor  # (B, T, A)
    n_current: int
    draws: SampleRng  # for its B samples


class Strategy:
    uses_replay: ClassVar[bool] = False  # old demos are mixed into every batch
    remembers: ClassVar[bool] = False  # needs the `memory` of the step before
    knows_all: ClassVar[bool] = True  # the policy after a step is meant for all tasks so far, not for the step's alone

    def __init__(self):
        self.memory: dict[str, Tensor] = {}  # the loop saves and restores it, during a step and from step to step
        self.phases: tuple[float, ...] = (1.0,)  # of a step, in budgets; each has its own optimiser and rate schedule

    def begin_task(self, policy: Policy, previous: Policy | None) -> None:
        """Before the optimiser is made. `policy`: about to learn, in training mode, with the weights of `previous`: the
        policy as the step before left it, None before the first step; keep it, do not change it."""

    def begin_phase(self, policy: Policy) -> None:
        """Before every phase but the first; `policy` may be changed."""

    def loss(self, policy: Policy, samples: Samples) -> dict[str, Tensor]:
        """Scalars by name; "loss" is the one to minimise, the others are its unweighted terms."""
        bc = bc_loss(policy(samples.inputs).dist, samples.action)
        return {"loss": bc, "bc": bc}

    def update(self, policy: Policy, optimiser: Optimizer) -> None:
        """Apply the gradients."""
        optimiser.step()

    def end_task(self, policy: Policy, epoch: Iterable[Samples]) -> None:
        """After the last gradient step. `policy` holds the weights to be saved, which stay; `epoch`: one pass over the
        step's own samples, augmented as in training."""
