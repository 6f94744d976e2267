"""A stage's own gradient step, apart from the loop: what it costs is what a run pays, short of logging and saved
states."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from m2distill_policy.models import Policy
from m2distill_training.bench.synthetic import TEXT_WIDTH
from m2distill_training.config import TrainConfig
from m2distill_training.data.windows import DemoSubset, Windows
from m2distill_training.engine.distributed import DistributedContext
from m2distill_training.engine.trainer import Trainer
from m2distill_training.runs.run_folder import RunFolder


class Steps:
    """A stage about to learn `current`, after a stage for each of `earlier`; `step()` makes one gradient step."""

    def __init__(self, config: TrainConfig, current: DemoSubset, earlier: Sequence[DemoSubset] = ()):
        self.spec = config.policy_spec(config.text_encoder, TEXT_WIDTH)
        torch.manual_seed(config.seed)
        previous = Policy(config.model, self.spec) if earlier else None
        folder = RunFolder(Path("not-written"))  # gradient steps write nothing
        self._learner = Trainer(
            config,
            self.spec,
            "cpu",
            len(earlier) + 1,
            [[part] for part in (*earlier, current)],
            previous,
            folder,
            DistributedContext(),
        )

    @property
    def current(self) -> Windows:
        return self._learner.current

    def step(self) -> dict[str, float]:
        """The losses of the gradient step made."""
        self._learner.gradient_step()
        return self._learner.losses

    def checkpoint_kb(self) -> dict[str, int]:
        """Kilobytes of the checkpoint that would follow: the network, and the instructions it knows."""
        learner = self._learner
        weights, known = learner.policy.state_dict(), [*learner.old, *learner.new]
        return {
            "weights_kb": round(sum(x.nbytes for x in weights.values()) / 1024),
            "instructions_kb": round(sum(part.text.nbytes for part in known) / 1024),
        }


def with_batch(config: TrainConfig, strategy: str, current: int, replayed: int = 1) -> TrainConfig:
    """The same training with so many windows of the current task, and of earlier ones, in every batch."""
    return dataclasses.replace(
        config.with_strategy(strategy),
        optim=dataclasses.replace(config.optim, batch_size=current),
        replay=dataclasses.replace(config.replay, batch_size=replayed),
    )
