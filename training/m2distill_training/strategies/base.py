"""Interface between the trainer and a strategy.

The base class is plain behaviour cloning; a strategy overrides the methods in which it differs. One object serves one
stage. Only the policy and `memory` pass from one stage to the next, and the size of both is independent of the number
of learned tasks.
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
    """Samples of one gradient step: rows [:n_current] belong to the current task, the other rows are replayed."""

    inputs: Batch
    action: Tensor  # (B, T, A)
    n_current: int
    rng: SampleRng  # random numbers of its B samples


class Strategy:
    """Plain behaviour cloning, and the base of all strategies."""

    uses_replay: ClassVar[bool] = False  # mixes demos of earlier tasks into every batch
    remembers: ClassVar[bool] = False  # needs the `memory` of the previous stage
    knows_all: ClassVar[bool] = True  # the policy after a stage serves all tasks so far, not only the stage's own

    def __init__(self):
        self.memory: dict[str, Tensor] = {}  # the trainer saves and restores it, during a stage and between stages
        self.phases: tuple[float, ...] = (
            1.0,
        )  # lengths of a stage's phases, in budgets; each has its own optimiser and schedule

    def begin_task(self, policy: Policy, previous: Policy | None) -> None:
        """Prepare a stage, before the optimiser is created.

        Args:
            policy: the policy to train, in training mode, with the weights of `previous`.
            previous: the policy after the previous stage, None in the first stage; may be kept but not changed.
        """

    def begin_phase(self, policy: Policy) -> None:
        """Prepare a phase after the first one; `policy` may be changed."""

    def loss(self, policy: Policy, samples: Samples) -> dict[str, Tensor]:
        """Return scalars by name: "loss" is minimised, the others are its unweighted terms."""
        bc = bc_loss(policy(samples.inputs).dist, samples.action)
        return {"loss": bc, "bc": bc}

    def update(self, policy: Policy, optimiser: Optimizer) -> None:
        """Apply the gradients."""
        optimiser.step()

    def end_task(self, policy: Policy, epoch: Iterable[Samples]) -> None:
        """Update `memory` after the last gradient step.

        Args:
            policy: holds the weights that are saved; they must not change.
            epoch: one pass over the stage's own samples, augmented as in training.
        """
