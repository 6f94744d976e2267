"""Batches of one stage: which windows they hold, in which order, and with which random numbers.

Everything random in a gradient step is a function of (seed, stage index, gradient step): the order of samples
(windows.batch_ids), the random numbers of each sample (sample_rng.py) and, because torch is seeded before every step,
dropout. A saved state therefore needs no generator.
"""

import dataclasses
import math

import numpy as np
import torch

from m2distill_policy.models.batch import to_model_input
from m2distill_training.config import TrainConfig
from m2distill_training.data.replay import balanced_ids, choose_memory
from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.data.windows import DemoSubset, Windows, batch_ids
from m2distill_training.engine.augment import augment
from m2distill_training.runs.records import RunError
from m2distill_training.strategies import Samples

CURRENT_ORDER, REPLAY_ORDER = 0, 1  # distinguish the two sample orders of one stage


class StageBatches:
    """Augmented samples of the current tasks and of the replay memory, for every gradient step of one stage.

    Args:
        config: the run's configuration.
        stage_index: number of the stage, from 0; part of every seed.
        new: demos that this stage learns.
        old: demos that all earlier stages learned.
        replays: mix samples of `old` into every batch.
        device: where the tensors are needed.
    """

    def __init__(
        self,
        config: TrainConfig,
        stage_index: int,
        new: list[DemoSubset],
        old: list[DemoSubset],
        replays: bool,
        device: torch.device,
    ):
        self._config, self._device = config, device
        self._seed = (config.seed, stage_index)
        self.current = Windows(new, config.history)
        self.replay: Windows | None = None
        self._phases: list[list[np.ndarray]] = []  # of the replayed windows, if they are balanced
        self.kept: dict[int, DemoSubset] = {}  # place in `old` -> demos of the replay memory
        self.replayed_demos: dict[str, list[int]] = {}  # instruction, or key if it repeats -> demos in their file
        self.per_epoch = math.ceil(len(self.current) / config.optim.batch_size)  # gradient steps
        if old and replays:
            self.kept = _choose_replay(config, old)
            texts = [subset.store.instruction for subset in old]
            self.replayed_demos = {
                subset.store.instruction
                if texts.count(subset.store.instruction) == 1
                else subset.store.key: subset.chosen_in_file
                for subset in self.kept.values()
            }
            self.replay = Windows([*self.kept.values()], config.history)
            if config.replay.phases:
                self._phases = self.replay.phases()

    @property
    def constant_windows(self) -> int:
        """Return the number of windows, current and replayed, if augmentation is off, and 0 otherwise."""
        if not self._config.augment.is_off:
            return 0
        return len(self.current) + (0 if self.replay is None else len(self.replay))

    def check_divisible(self, processes: int) -> None:
        """Raise RunError unless every part of a batch has the same size."""
        accumulate = self._config.optim.accumulate
        parts = accumulate * processes
        sizes = {"optim.batch_size": self._config.optim.batch_size}
        if self.replay is not None:
            sizes["replay.batch_size"] = self._config.replay.batch_size
        for name, size in sizes.items():
            if size % parts:
                raise RunError(
                    f"{name} is {size}, which {parts} parts ({accumulate} of optim.accumulate in each of {processes} "
                    f"processes) cannot share evenly; choose a multiple of {parts}"
                )

    def seed_torch(self, step: int, part: int = 0) -> None:
        """Seed dropout for one part of one gradient step."""
        torch.manual_seed(_combine_seeds(*self._seed, step, part))

    def samples(self, step: int, part: int = 0, parts: int = 1, replay: bool = True) -> Samples:
        """Return the samples of part `part` of `parts` of gradient step `step`."""
        size = self._config.optim.batch_size
        rows = torch.arange(part, size, parts)
        current = batch_ids(len(self.current), size, step, (*self._seed, CURRENT_ORDER))[part::parts]
        batch = self.current.gather(current)
        n_current, total, ids = len(rows), size, np.zeros(0, np.int64)
        if replay and self.replay is not None:
            size = self._config.replay.batch_size
            rows, total = torch.cat([rows, total + torch.arange(part, size, parts)]), total + size
            seed = (*self._seed, REPLAY_ORDER)
            if self._phases:
                ids = balanced_ids(self._phases, size, step, seed)[part::parts]
            else:
                ids = batch_ids(len(self.replay), size, step, seed)[part::parts]
            batch = _concatenate(batch, self.replay.gather(ids))
        inputs = to_model_input(batch["images"], batch["joint"], batch["gripper"], batch["text"], self._device)
        rng = SampleRng(_combine_seeds(*self._seed, step), rows, total)
        inputs["images"] = augment(inputs["images"], self._config.augment, rng)
        action = torch.from_numpy(batch["action"]).to(self._device)
        windows = torch.from_numpy(np.concatenate([current, len(self.current) + ids]))
        return Samples(inputs, action, n_current, rng, torch.from_numpy(ids), windows)


def _choose_replay(config: TrainConfig, old: list[DemoSubset]) -> dict[int, DemoSubset]:
    """Return {place in `old`: demos of the replay memory}, without tasks that keep none."""
    chosen = choose_memory(
        [subset.replay_order(config.replay.choice, config.seed, task) for task, subset in enumerate(old)],
        [len(subset.chosen) for subset in old],
        config.replay.demos_per_task,
        config.replay.total_demos,
        config.seed,
    )
    return {task: dataclasses.replace(old[task], demos=demos) for task, demos in enumerate(chosen) if demos}


def _concatenate(a: dict, b: dict) -> dict:
    return {
        key: _concatenate(a[key], b[key]) if isinstance(a[key], dict) else np.concatenate([a[key], b[key]]) for key in a
    }


def _combine_seeds(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
