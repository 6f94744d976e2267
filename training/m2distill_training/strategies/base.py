"""The interface of a strategy. The base class is plain behaviour cloning; a strategy overrides what it changes.

One object serves one stage. The next stage receives the policy and `memory`: the size of both does not depend on the
number of tasks learned, unless the strategy adds decoders.

    @dataclass(frozen=True)
    class MyConfig:
        alpha: float = 0.3  # weight of the new term


    class MyStrategy(Strategy):
        Config = MyConfig
        uses_replay = True

        def loss(self, policy, samples):
            losses = super().loss(policy, samples)
            return {**losses, "loss": losses["bc"] * (1 + self.config.alpha)}

`m2distill train --strategy my_module:MyStrategy --my.alpha 0.5` uses it from the folder of my_module.py.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from m2distill_policy.models import Batch, Policy
from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.data.windows import Windows
from m2distill_training.losses.bc import bc_loss
from m2distill_training.strategies.configs import NoConfig


@dataclass(frozen=True)
class Samples:
    """The samples of one gradient step: rows [:n_current] are of the current task, the others are replayed."""

    inputs: Batch
    action: Tensor  # (B, T, A)
    n_current: int
    rng: SampleRng  # random numbers of its B samples
    replay_ids: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))  # of StageContext.replay
    windows: Tensor | None = None  # (B,) number of each sample's window: the current ones first, then the replayed


@dataclass(frozen=True)
class StageContext:
    """What a strategy may know of a stage besides the policies."""

    instructions: Tensor  # (K, L) sentence embeddings of the tasks of all earlier stages
    first_batch: Callable[[], Samples]  # the whole batch of the first gradient step, alike in every process
    replay: Windows | None = None  # the windows that replayed samples are drawn from, None without replay
    # Of every window of `replay`, the mixture of the policy that had just learned its task: "logits" (W, T, K), "mean"
    # and "std" (W, T, K, A). The first call computes and stores what the run folder does not hold yet.
    stored_mixtures: Callable[[], dict[str, Tensor]] | None = None
    constant_windows: int = 0  # number of windows, if each has the same inputs in every gradient step; 0 if augmented
    new_instructions: Tensor | None = None  # (N, L) sentence embeddings of the tasks of this stage


class Strategy:
    """Behaviour cloning, and the base class of all strategies.

    Attributes:
        Config: Frozen dataclass of the hyper-parameters, all with defaults. `self.config` is an instance of it.
        memory: Tensors by name. The trainer saves and restores them during a stage and between stages.
        context: What the stage is about. The trainer sets it before `begin_task`.
        phases: Lengths of the phases of a stage, as shares of the budget. Each phase has its own optimiser and rate
            schedule.
    """

    Config: ClassVar[type] = NoConfig
    uses_replay: ClassVar[bool] = False  # earlier demos are mixed into every batch
    remembers: ClassVar[bool] = False  # a stage needs the `memory` of the previous one
    knows_all: ClassVar[bool] = True  # the policy after a stage serves all tasks so far, not those of the stage alone
    adds_decoders: ClassVar[bool] = False  # a later stage adds a decoder to the policy and changes nothing else
    own_encoders: ClassVar[bool] = False  # such a decoder has encoders of its own
    joint: ClassVar[bool] = False  # all tasks are learned together in one stage

    def __init__(self, config: Any):
        self.config = config
        self.memory: dict[str, Tensor] = {}
        self.context: StageContext | None = None
        self.phases: tuple[float, ...] = (1.0,)

    def begin_task(self, policy: Policy, previous: Policy | None) -> None:
        """Prepare a stage, before the optimiser is made.

        Args:
            policy: The policy that will learn, in training mode, with the weights of `previous`.
            previous: The policy at the end of the previous stage, None in the first one. It may be kept and must not
                be changed.
        """

    def begin_phase(self, policy: Policy) -> None:
        """Prepare a phase other than the first one. `policy` may be changed."""

    def loss(self, policy: Policy, samples: Samples) -> dict[str, Tensor]:
        """Return scalars by name: "loss" is minimised, the others are its unweighted terms, for the log."""
        bc = bc_loss(policy(samples.inputs).dist, samples.action)
        return {"loss": bc, "bc": bc}

    def measured_losses(self, step: int) -> tuple[str, ...]:
        """Return the names of losses whose gradients the trainer measures in gradient step `step`, from 0."""
        return ()

    def take_gradient_norms(self, norms: dict[str, float]) -> None:
        """Receive the L2 norms of the gradients of `measured_losses`, of the whole batch, before the update."""

    def log_values(self) -> dict[str, float]:
        """Return further values for metrics.jsonl and TensorBoard."""
        return {}

    def update(self, policy: Policy, optimiser: Optimizer) -> None:
        """Apply the gradients."""
        optimiser.step()

    def saved_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights that a checkpoint holds, from those of the present gradient step, which stay unchanged."""
        return weights

    def end_task(self, policy: Policy, epoch: Iterable[Samples]) -> None:
        """Finish a stage, after the last gradient step.

        Args:
            policy: The policy with the weights that will be saved. They must not be changed.
            epoch: The samples of one epoch of the stage, augmented as in training.
        """
