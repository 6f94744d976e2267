"""The gradient step of a stage without logging and saved states, for benchmarks."""

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
    """Stage that learns `current` after one stage for each of `earlier`; `step()` makes one gradient step."""

    def __init__(self, config: TrainConfig, current: DemoSubset, earlier: Sequence[DemoSubset] = ()):
        self.spec = config.policy_spec(config.text_encoder, TEXT_WIDTH)
        torch.manual_seed(config.seed)
        previous = Policy(config.model, self.spec) if earlier else None
        folder = RunFolder(Path("not-written"))  # gradient steps write no files
        self._trainer = Trainer(
            config,
            self.spec,
            "cpu",
            len(earlier) + 1,
            [[subset] for subset in (*earlier, current)],
            previous,
            folder,
            DistributedContext(),
        )

    @property
    def current(self) -> Windows:
        return self._trainer.batches.current

    def step(self) -> dict[str, float]:
        """Make one gradient step and return its losses."""
        self._trainer.gradient_step()
        return self._trainer.losses

    def checkpoint_kb(self) -> dict[str, int]:
        """Return the kilobytes of the network and of the known instructions in the stage's checkpoint."""
        trainer = self._trainer
        weights, known = trainer.policy.state_dict(), [*trainer.old, *trainer.new]
        return {
            "weights_kb": round(sum(x.nbytes for x in weights.values()) / 1024),
            "instructions_kb": round(sum(subset.text.nbytes for subset in known) / 1024),
        }


def with_batch(config: TrainConfig, strategy: str, current: int, replayed: int = 1) -> TrainConfig:
    """Return the config with another strategy and other numbers of current and replayed windows in a batch."""
    return dataclasses.replace(
        config.with_strategy(strategy),
        optim=dataclasses.replace(config.optim, batch_size=current),
        replay=dataclasses.replace(config.replay, batch_size=replayed),
    )
