"""One stage: data, network, optimiser. Nothing else owns an optimiser.

Everything random in gradient step s of stage k + 1 is a function of (seed, k, s): the order of samples
(windows.batch_ids), what is drawn for each sample (draws.py) and, by re-seeding torch before every step, dropout. So
the saved state needs no generator, and a run that was interrupted ends in the same weights as one that was not.

A batch is learned in parts, one after the other (optim.accumulate) and side by side (ranks.py): part i of n has every
n-th sample from the i-th on, of the current task as of the replayed ones, and the parts' mean gradient is the batch's.

A stage has one phase of gradient steps or, where its strategy says so, several: each begins like a stage, from
the weights that would have been saved, with a new optimiser, average and schedule.
"""

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from m2distill_policy.cameras import CAMERAS, camera_records
from m2distill_policy.checkpoint import Checkpoint
from m2distill_policy.models import Policy
from m2distill_policy.models.batch import to_model_input
from m2distill_policy.spec import PolicySpec
from m2distill_training.config import ConfigError, OptimConfig, TrainConfig
from m2distill_training.data.replay import choose_memory
from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.data.windows import DemoSubset, Windows, batch_ids
from m2distill_training.engine.augment import augment
from m2distill_training.engine.distributed import DistributedContext
from m2distill_training.runs.run_folder import RunError, RunFolder
from m2distill_training.strategies import Samples, make_strategy
from m2distill_training.strategies.memory import load_memory, save_memory
from m2distill_training.utils.allocator import freed_memory_kept

CURRENT_ORDER, REPLAY_ORDER = 0, 1  # tell the two sample orders of one stage apart


@dataclass(frozen=True)
class Progress:
    """Given to `on_step` after every gradient step."""

    stage: int  # from 1
    stages: int
    step: int  # gradient steps done in this stage
    steps: int
    later_steps: int  # gradient steps of the stages after this one
    losses: dict[str, float]
    lr: float
    steps_per_s: float

    @property
    def seconds_left(self) -> float:
        """The estimated time until the end of the last stage, at the present rate."""
        return (self.steps - self.step + self.later_steps) / self.steps_per_s


class Trainer:
    """Of stage `stage`, from 1; `stages` are the parts of the data of this stage and of all before it."""

    def __init__(
        self,
        config: TrainConfig,
        spec: PolicySpec,
        device: str,
        stage: int,
        stages: list[list[DemoSubset]],
        previous: Policy | None,
        run: RunFolder,
        ranks: DistributedContext,
    ):
        self.config, self.device, self.folder, self.ranks = config, torch.device(device), run, ranks
        self.stage, self.stage_index = stage, stage - 1  # the random streams count from 0
        self.strategy = make_strategy(config)
        self.new, self.old = stages[-1], [part for stage in stages[:-1] for part in stage]
        self.current = Windows(self.new, config.history)
        self.replay, self.kept = None, {}
        if self.old and self.strategy.uses_replay:
            orders = [part.random_order(config.seed, task) for task, part in enumerate(self.old)]
            chosen = choose_memory(
                orders,
                [len(part.chosen) for part in self.old],
                config.replay.demos_per_task,
                config.replay.total_demos,
                config.seed,
            )
            kept = [
                dataclasses.replace(part, demos=demos) for part, demos in zip(self.old, chosen, strict=True) if demos
            ]
            self.kept = {part.store.instruction: part.chosen_in_file for part in kept}
            self.replay = Windows(kept, config.history)
        self.batch_parts = config.optim.accumulate * ranks.size
        self._check_divisible()
        torch.manual_seed(config.seed)
        self.policy = Policy(config.model, spec)
        if previous is not None:
            self.policy.load_state_dict(previous.state_dict())
        if ranks.size > 1 and self.device.type == "cuda":  # a CPU has no such layer: there every process has its own
            self.policy = nn.SyncBatchNorm.convert_sync_batchnorm(self.policy)  # statistics, and the leader's are kept
        self.policy.to(self.device).train()
        if previous is not None and self.strategy.remembers:
            self._set_memory(load_memory(self._memory_path(stage - 1)))
        self.strategy.begin_task(self.policy, None if previous is None else previous.to(self.device))
        o = config.optim
        self.per_epoch = math.ceil(len(self.current) / o.batch_size)
        self.phases = self._phase_lengths(len(self.new), self.per_epoch)
        self.steps = sum(self.phases)
        self.step = 0
        self.losses: dict[str, float] = {}
        self._begin_optimiser()

    def _phase_lengths(self, tasks: int, per_epoch: int) -> list[int]:
        o = self.config.optim
        budget = o.budget * (tasks if o.budget_unit == "steps" else per_epoch)
        return [max(1, round(share * budget)) for share in self.strategy.phases]

    def steps_of(self, parts: list[DemoSubset]) -> int:
        """The gradient steps of another stage, which learns `parts`."""
        windows = len(Windows(parts, self.config.history))
        return sum(self._phase_lengths(len(parts), math.ceil(windows / self.config.optim.batch_size)))

    def _check_divisible(self) -> None:
        sizes = {"optim.batch_size": self.config.optim.batch_size}
        if self.replay is not None:
            sizes["replay.batch_size"] = self.config.replay.batch_size
        for name, size in sizes.items():
            if size % self.batch_parts:
                raise RunError(
                    f"{name} is {size}, which {self.batch_parts} parts ({self.config.optim.accumulate} of "
                    f"optim.accumulate in each of {self.ranks.size} processes) cannot share evenly; "
                    f"choose a multiple of {self.batch_parts}"
                )

    def _begin_optimiser(self) -> None:
        o = self.config.optim
        self.average = {name: x.clone() for name, x in self.policy.state_dict().items()} if o.ema_decay > 0 else None
        self.optimiser = torch.optim.AdamW(
            self.policy.parameters(), lr=o.lr, betas=(o.beta1, o.beta2), weight_decay=o.weight_decay, fused=True
        )

    def _phase(self) -> tuple[int, int]:
        """First gradient step and number of gradient steps of the phase that the next gradient step belongs to."""
        start = 0
        for length in self.phases:
            if self.step < start + length:
                break
            start += length
        return start, length

    @freed_memory_kept()
    def run(
        self, stages: int, on_step: Callable[[Progress], None], interrupted: threading.Event, later_steps: int = 0
    ) -> None:
        run = self.folder
        if state := run.load_state(self.stage):
            self._restore(state)
        run.record_environment(self.ranks.size)
        run.forget_metrics_after(self.stage, self.step)
        run.write_json(f"stages/{self.stage}/replay.json", self.kept)
        curve = self._curve_points()
        self._keep_point(curve)
        began, begun_at = time.monotonic(), self.step
        while self.step < self.steps:
            lr, grad_norm = self.gradient_step()
            rate = (self.step - begun_at) / (time.monotonic() - began)
            if self.step % self.config.log_every == 0 or self.step == self.steps:
                run.log(
                    {
                        "stage": self.stage,
                        "step": self.step,
                        **self.losses,
                        "lr": lr,
                        "grad_norm": grad_norm,
                        "steps_per_s": round(rate, 3),
                    }
                )
            self._keep_point(curve)
            on_step(Progress(self.stage, stages, self.step, self.steps, later_steps, self.losses, lr, rate))
            stop = self.ranks.any(interrupted.is_set())
            if stop or self.step % self.config.save_every == 0 or self.step == self.steps:
                run.save_state(self.stage, self._state())
            if stop:
                raise KeyboardInterrupt

    def finish(self, interrupted: threading.Event) -> None:
        """Write the stage's checkpoint, and before it what else the next stage needs; then its state is not needed."""
        self._load_average()
        self.strategy.end_task(self.policy, self._epoch(interrupted))
        if self.ranks.leads:
            if self.strategy.remembers:
                save_memory(self._memory_path(self.stage), self.strategy.memory)
            self.folder.save_checkpoint(self.folder.checkpoint(self.stage), self._checkpoint())
            self.folder.state(self.stage).unlink(missing_ok=True)

    def _curve_points(self) -> dict[int, int]:
        """Gradient step -> number of the curve's point. LIBERO's forward transfer is the mean success over epochs 0, 5,
        .. 50, which curve_points=10 gives; what PackNet learns after pruning does not count, there as here."""
        n = self.config.curve_points
        return {round(i * self.phases[0] / n): i for i in range(n + 1)} if n > 0 else {}

    def _keep_point(self, curve: dict[int, int]) -> None:
        if self.step in curve:
            path = self.folder.checkpoint(self.stage).with_name("curve") / str(curve[self.step])
            self.folder.save_checkpoint(path, self._checkpoint())

    def _checkpoint(self) -> Checkpoint:
        weights = self.policy.state_dict() if self.average is None else self.average
        known = [*self.old, *self.new] if self.strategy.knows_all else self.new
        metrics = {
            "stage": self.stage,
            "strategy": self.config.strategy,
            "preset": self.config.preset,
            "protocol": self.config.protocol.name,
            "seed": self.config.seed,
            "gradient_steps": self.step,
            "losses": self.losses,
            "replayed_demos": self.kept,
            **({"cameras": camera_records(self.config.cameras)} if self.config.cameras != CAMERAS else {}),
            **self.folder.lineage(self.stage, [part.store.instruction for part in (*self.old, *self.new)]),
        }
        return Checkpoint(
            spec=self.policy.spec,
            model_config=self.config.model,
            state_dict={name: x.detach().cpu() for name, x in weights.items()},
            instructions={part.store.instruction: part.text for part in known},
            metrics=metrics,
        )

    def _epoch(self, interrupted: threading.Event) -> Iterator[Samples]:
        """One pass over the current task's windows in full batches."""
        for i in range(self.steps, self.steps + self.per_epoch):
            if interrupted.is_set():  # the state after the last gradient step is saved
                raise KeyboardInterrupt
            self._seed(i)
            yield self._samples(i, replay=False)

    def _load_average(self) -> None:
        if self.average is not None:
            self.policy.load_state_dict(self.average)

    def _memory_path(self, stage: int) -> Path:
        return self.folder.checkpoint(stage).with_name("memory.safetensors")

    def _set_memory(self, memory: dict[str, torch.Tensor]) -> None:
        self.strategy.memory = {name: x.to(self.device) for name, x in memory.items()}

    def _seed(self, step: int, part: int = 0) -> None:
        torch.manual_seed(_seed_of(self.config.seed, self.stage_index, step, part))

    def gradient_step(self) -> tuple[float, float]:
        """The learning rate and the gradient's norm."""
        o = self.config.optim
        start, length = self._phase()
        if self.step == start > 0:
            self._load_average()
            self.strategy.begin_phase(self.policy)
            self._begin_optimiser()
        lr = learning_rate(o, self.step - start, length, self.per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad(set_to_none=True)
        values = self._add_gradients()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), o.grad_clip).item()
        if not (math.isfinite(grad_norm) and all(math.isfinite(x) for x in values.values())):
            raise self._diverged(f"{values}, gradient norm {grad_norm}")
        self.strategy.update(self.policy, self.optimiser)
        self.losses, self.step = values, self.step + 1
        if self.average is not None:
            self._update_average(self.average, self.step - start)
        return lr, grad_norm

    def _add_gradients(self) -> dict[str, float]:
        """The whole batch's mean gradient, into the policy; the mean losses."""
        o = self.config.optim
        mean: dict[str, torch.Tensor] = {}
        for part in range(self.ranks.rank * o.accumulate, (self.ranks.rank + 1) * o.accumulate):
            self._seed(self.step, part)
            samples = self._samples(self.step, part, self.batch_parts)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
                losses = self._checked(self.strategy.loss(self.policy, samples))
            (losses["loss"] / self.batch_parts).backward()
            for name, x in losses.items():
                mean[name] = mean.get(name, 0) + x.detach() / self.batch_parts
        self.ranks.add_up([*(p.grad for p in self.policy.parameters() if p.grad is not None), *mean.values()])
        return {name: x.item() for name, x in mean.items()}

    def _checked(self, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the losses of a strategy if they can be minimised and logged. Raises ConfigError."""
        scalars = isinstance(losses, dict) and all(isinstance(x, torch.Tensor) and x.ndim == 0 for x in losses.values())
        if not scalars or "loss" not in losses:
            got = {name: getattr(x, "shape", x) for name, x in losses.items()} if isinstance(losses, dict) else losses
            raise ConfigError(
                f"strategy {self.config.strategy}: loss() returned {got!r:.200}, expected a dict of scalar tensors "
                'with the key "loss"'
            )
        return losses

    def _samples(self, step: int, part: int = 0, parts: int = 1, replay: bool = True) -> Samples:
        """The samples of gradient step `step` that part `part` of `parts` has."""
        seed, size = (self.config.seed, self.stage_index), self.config.optim.batch_size
        rows = torch.arange(part, size, parts)
        batch = self.current.gather(batch_ids(len(self.current), size, step, (*seed, CURRENT_ORDER))[part::parts])
        n_current, total = len(rows), size
        if replay and self.replay is not None:
            size = self.config.replay.batch_size
            rows, total = torch.cat([rows, total + torch.arange(part, size, parts)]), total + size
            ids = batch_ids(len(self.replay), size, step, (*seed, REPLAY_ORDER))[part::parts]
            batch = _concatenate(batch, self.replay.gather(ids))
        inputs = to_model_input(batch["images"], batch["joint"], batch["gripper"], batch["text"], self.device)
        draws = SampleRng(_seed_of(*seed, step), rows, total)
        inputs["images"] = augment(inputs["images"], self.config.augment, draws)
        return Samples(inputs, torch.from_numpy(batch["action"]).to(self.device), n_current, draws)

    def _update_average(self, average: dict[str, torch.Tensor], step: int) -> None:
        decay = min(self.config.optim.ema_decay, step / (step + 10))  # short memory first: forget the start
        for name, x in self.policy.state_dict().items():
            if x.is_floating_point():
                average[name].lerp_(x, 1 - decay)
            else:
                average[name].copy_(x)

    def _state(self) -> dict:
        for name, x in self.policy.state_dict().items():
            if not torch.isfinite(x).all():  # the loss that would show it comes only with the next gradient step
                raise self._diverged(f"weight {name} is not finite after it")
        return {
            "step": self.step,
            "losses": self.losses,
            "policy": self.policy.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "memory": self.strategy.memory,
        }

    def _restore(self, state: dict) -> None:
        self.step, self.losses = state["step"], state["losses"]
        self.policy.load_state_dict(state["policy"])
        self.optimiser.load_state_dict(state["optimiser"])
        self._set_memory(state["memory"])
        if self.average is not None:
            self.average = {name: x.to(self.device) for name, x in state["average"].items()}

    def _diverged(self, how: str) -> RunError:
        return RunError(
            f"training diverged at gradient step {self.step} of stage {self.stage}: {how}; lower optim.lr "
            "or the weight of the largest term, or raise model.min_std. The last saved state and earlier "
            "checkpoints are untouched"
        )


def learning_rate(o: OptimConfig, step: int, steps: int, per_epoch: int) -> float:
    """The rate of gradient step `step`: a linear warm-up, and a cosine from lr at the start to min_lr at the end; in an
    epoch budget the cosine moves once per epoch (LIBERO steps torch's CosineAnnealingLR so)."""
    if step < o.warmup_steps:
        return o.lr * (step + 1) / o.warmup_steps
    position = (step if o.budget_unit == "steps" else step - step % per_epoch) / steps
    return o.min_lr + (o.lr - o.min_lr) * (1 + math.cos(math.pi * position)) / 2


def _concatenate(a: dict, b: dict) -> dict:
    return {
        key: _concatenate(a[key], b[key]) if isinstance(a[key], dict) else np.concatenate([a[key], b[key]]) for key in a
    }


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
