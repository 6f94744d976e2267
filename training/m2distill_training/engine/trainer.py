"""Trainer of one stage: network, optimiser, state and checkpoint. No other module owns an optimiser.

An interrupted run ends in the same weights as an uninterrupted one, because all random numbers are functions of the
gradient step (batches.py).

A batch is learned in parts, one after the other (optim.accumulate) and in parallel (distributed.py). Part i of n holds
every n-th sample from the i-th on, of the current task and of the replayed ones alike, and the mean of the parts'
gradients is the gradient of the batch.

A stage has one phase of gradient steps, or several if its strategy defines them. Each phase begins from the weights
that a checkpoint would hold, with a new optimiser, average and schedule.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from m2distill_policy.cameras import CAMERAS, camera_records
from m2distill_policy.checkpoint import Checkpoint
from m2distill_policy.models import Policy
from m2distill_policy.spec import PolicySpec
from m2distill_training.config import AUTO, ConfigError, TrainConfig
from m2distill_training.data.windows import DemoSubset, Windows
from m2distill_training.engine.batches import StageBatches
from m2distill_training.engine.distributed import DistributedContext
from m2distill_training.engine.gradients import TermGradients
from m2distill_training.engine.optimiser import AdamW
from m2distill_training.engine.rate import MovingRate
from m2distill_training.engine.schedule import Phases, learning_rate
from m2distill_training.engine.stored_mixtures import stored_mixtures
from m2distill_training.runs.records import RunError
from m2distill_training.runs.run_folder import RunFolder
from m2distill_training.strategies import Samples, make_strategy
from m2distill_training.strategies.base import StageContext
from m2distill_training.strategies.memory import load_memory, save_memory
from m2distill_training.utils.allocator import freed_memory_kept
from m2distill_training.utils.device import fast_precision


@dataclass(frozen=True)
class TrainProgress:
    """State of the training after a gradient step, for `on_step`."""

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
        """Return the estimated time until the end of the last stage at the present rate."""
        return (self.steps - self.step + self.later_steps) / self.steps_per_s


class Trainer:
    """Training of one stage.

    Args:
        config: the run's configuration.
        spec: inputs and outputs of the policy.
        device: where the network is trained.
        stage: number of the stage, from 1.
        stages: demos of each stage up to and including this one.
        previous: the policy after the previous stage; None in the first stage.
        run: the run folder.
        distributed: the processes that learn together.
        instructions: embeddings of all instructions that `previous` knows, if it knows more than those of `stages`.
    """

    def __init__(
        self,
        config: TrainConfig,
        spec: PolicySpec,
        device: str,
        stage: int,
        stages: list[list[DemoSubset]],
        previous: Policy | None,
        run: RunFolder,
        distributed: DistributedContext,
        instructions: Sequence[np.ndarray] | None = None,
    ):
        self.config, self.device, self.stage = config, torch.device(device), stage
        self.precision = fast_precision(device) if config.precision == AUTO else config.precision
        self.folder, self.distributed = run, distributed
        self.strategy = make_strategy(config)
        self.new, self.old = stages[-1], [subset for earlier in stages[:-1] for subset in earlier]
        stage_index = stage - 1  # the random streams count from 0
        self.batches = StageBatches(config, stage_index, self.new, self.old, self.strategy.uses_replay, self.device)
        self.batches.check_divisible(distributed.size)
        self.batch_parts = config.optim.accumulate * distributed.size
        self.policy = self._create_policy(spec, previous)
        if previous is not None and self.strategy.remembers:
            self._set_memory(load_memory(self._memory_path(stage - 1)))
        known = [subset.text for subset in self.old] if instructions is None else instructions
        self.strategy.context = StageContext(
            torch.from_numpy(np.stack(known)) if known else torch.zeros(0, spec.text_width),
            lambda: self.batches.samples(0),
            self.batches.replay,
            lambda: stored_mixtures(run, self.batches.kept, config.history, distributed, self.device),
            self.batches.constant_windows,
            torch.from_numpy(np.stack([subset.text for subset in self.new])),
        )
        self.strategy.begin_task(self.policy, None if previous is None else previous.to(self.device))
        self.phases = Phases(self.strategy.phases, self._budget(len(self.new), self.batches.per_epoch))
        self.step = 0
        self.losses: dict[str, float] = {}
        self._begin_optimiser()

    def _create_policy(self, spec: PolicySpec, previous: Policy | None) -> Policy:
        torch.manual_seed(self.config.seed)
        policy = Policy(self.config.model if previous is None else previous.config, spec)
        if previous is not None:
            policy.load_state_dict(previous.state_dict())
        if self.distributed.size > 1 and self.device.type == "cuda":
            # On CPUs this layer does not exist: each process has its own statistics, and the leader's are saved.
            policy = nn.SyncBatchNorm.convert_sync_batchnorm(policy)
        return policy.to(self.device).train()

    def _budget(self, tasks: int, per_epoch: int) -> int:
        o = self.config.optim
        return o.budget * (tasks if o.budget_unit == "steps" else per_epoch)

    def steps_of(self, subsets: list[DemoSubset]) -> int:
        """Return the gradient steps of another stage, which learns `subsets`."""
        per_epoch = math.ceil(len(Windows(subsets, self.config.history)) / self.config.optim.batch_size)
        return Phases(self.strategy.phases, self._budget(len(subsets), per_epoch)).steps

    def _begin_optimiser(self) -> None:
        o = self.config.optim
        self.average = {name: x.clone() for name, x in self.policy.state_dict().items()} if o.ema_decay > 0 else None
        self.optimiser = AdamW(
            self.policy.parameters(), lr=o.lr, betas=(o.beta1, o.beta2), weight_decay=o.weight_decay, fused=True
        )

    @freed_memory_kept()
    def run(
        self, stages: int, on_step: Callable[[TrainProgress], None], stop: Callable[[], bool], later_steps: int = 0
    ) -> None:
        """Make all gradient steps of the stage, from its saved state if there is one.

        Args:
            stages: number of stages of the run, for the progress.
            on_step: called after every gradient step.
            stop: called after every gradient step; when it returns True, the state is saved.
            later_steps: gradient steps of the stages after this one, for the progress.

        Raises:
            KeyboardInterrupt: `stop` returned True in any process.
        """
        run, steps = self.folder, self.phases.steps
        if state := run.load_state(self.stage):
            self._restore(state)
        run.record_environment(self.distributed.size)
        run.forget_metrics_after(self.stage, self.step)
        run.write_json(f"stages/{self.stage}/replay.json", self.batches.replayed_demos)
        curve = self.phases.curve_points(self.config.curve_points)
        self._save_point(curve)
        rate_meter = MovingRate()
        while self.step < steps:
            lr, grad_norm = self.gradient_step()
            rate = rate_meter.after(time.monotonic())
            if self.step % self.config.log_every == 0 or self.step == steps:
                line = {"stage": self.stage, "step": self.step, **self.losses, "lr": lr, "grad_norm": grad_norm}
                line |= self.strategy.log_values()
                run.log(line | {"steps_per_s": round(rate, 3)})
            self._save_point(curve)
            on_step(TrainProgress(self.stage, stages, self.step, steps, later_steps, self.losses, lr, rate))
            stopped = self.distributed.any(stop())
            if stopped or self.step % self.config.save_every == 0 or self.step == steps:
                run.save_state(self.stage, self._state())
            if stopped:
                raise KeyboardInterrupt

    def finish(self, stop: Callable[[], bool]) -> None:
        """Write the strategy's memory and then the checkpoint of the stage, and remove its saved state."""
        weights = self._saved_weights()
        self.policy.load_state_dict(weights)
        self.strategy.end_task(self.policy, self._epoch(stop))
        if self.distributed.leads:
            if self.strategy.remembers:
                save_memory(self._memory_path(self.stage), self.strategy.memory)
            self.folder.save_checkpoint(self.folder.checkpoint(self.stage), self._checkpoint(weights))
            self.folder.state(self.stage).unlink(missing_ok=True)

    def gradient_step(self) -> tuple[float, float]:
        """Make one gradient step; return the learning rate and the norm of the gradient."""
        o = self.config.optim
        start, length = self.phases.at(self.step)
        if self.step == start > 0:
            self._load_average()
            self.strategy.begin_phase(self.policy)
            self._begin_optimiser()
        lr = learning_rate(o, self.step - start, length, self.batches.per_epoch, self.stage)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad(set_to_none=True)
        mean = self._add_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), o.grad_clip)
        grad_norm, *losses = torch.stack([norm, *mean.values()]).tolist()  # one wait for a GPU instead of several
        values = dict(zip(mean, losses, strict=True))
        if not (math.isfinite(grad_norm) and all(math.isfinite(x) for x in values.values())):
            raise diverged(self.step, self.stage, f"{values}, gradient norm {grad_norm}")
        self.strategy.update(self.policy, self.optimiser)
        self.losses, self.step = values, self.step + 1
        if self.average is not None:
            update_average(self.average, self.policy, o.ema_decay, self.step - start)
        return lr, grad_norm

    def _add_gradients(self) -> dict[str, torch.Tensor]:
        """Set the policy's gradients to the mean over the whole batch; return the mean losses."""
        o = self.config.optim
        mean: dict[str, torch.Tensor] = {}
        measured = TermGradients(self.policy, self.strategy.measured_losses(self.step))
        first = self.distributed.rank * o.accumulate
        for part in range(first, first + o.accumulate):
            self.batches.seed_torch(self.step, part)
            samples = self.batches.samples(self.step, part, self.batch_parts)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                losses = checked_losses(self.config.strategy, self.strategy.loss(self.policy, samples))
            measured.add(losses, 1 / self.batch_parts)
            (losses["loss"] / self.batch_parts).backward()
            for name, x in losses.items():
                mean[name] = mean.get(name, 0) + x.detach() / self.batch_parts
        gradients = [p.grad for p in self.policy.parameters() if p.grad is not None]
        self.distributed.add_up([*gradients, *mean.values(), *measured.tensors()])
        if measured.names:
            self.strategy.take_gradient_norms(measured.norms())
        return mean

    def _epoch(self, stop: Callable[[], bool]) -> Iterator[Samples]:
        """Yield full batches of all windows of the current task, once."""
        for i in range(self.phases.steps, self.phases.steps + self.batches.per_epoch):
            if stop():  # the state after the last gradient step is saved
                raise KeyboardInterrupt
            self.batches.seed_torch(i)
            yield self.batches.samples(i, replay=False)

    def finished_policy(self) -> Policy:
        """Return the policy with the weights that a checkpoint would hold; training cannot continue after it."""
        self.policy.load_state_dict(self._saved_weights())
        return self.policy

    def _saved_weights(self) -> dict[str, torch.Tensor]:
        return self.strategy.saved_weights(self.policy.state_dict() if self.average is None else self.average)

    def _load_average(self) -> None:
        if self.average is not None:
            self.policy.load_state_dict(self.average)

    def _memory_path(self, stage: int) -> Path:
        return self.folder.stage_folder(stage) / "memory.safetensors"

    def _set_memory(self, memory: dict[str, torch.Tensor]) -> None:
        self.strategy.memory = {name: x.to(self.device) for name, x in memory.items()}

    def _save_point(self, curve: dict[int, int]) -> None:
        if self.step in curve:
            path = self.folder.stage_folder(self.stage) / "curve" / str(curve[self.step])
            self.folder.save_checkpoint(path, self._checkpoint(self._saved_weights()))

    def _checkpoint(self, weights: dict[str, torch.Tensor]) -> Checkpoint:
        known = [*self.old, *self.new] if self.strategy.knows_all else self.new
        metrics = {
            "stage": self.stage,
            "strategy": self.config.strategy,
            "preset": self.config.preset,
            "protocol": self.config.protocol.name,
            "seed": self.config.seed,
            "gradient_steps": self.step,
            "losses": self.losses,
            "replayed_demos": self.batches.replayed_demos,
            **({"cameras": camera_records(self.config.cameras)} if self.config.cameras != CAMERAS else {}),
            **self.folder.lineage(self.stage, [(x.store.instruction, x.store.key) for x in (*self.old, *self.new)]),
        }
        return Checkpoint(
            spec=self.policy.spec,
            model_config=self.policy.config,
            state_dict={name: x.detach().cpu() for name, x in weights.items()},
            instructions={subset.store.instruction: subset.text for subset in known},
            metrics=metrics,
        )

    def _state(self) -> dict:
        for name, x in self.policy.state_dict().items():
            if not torch.isfinite(x).all():  # the loss would show it only in the next gradient step
                raise diverged(self.step, self.stage, f"weight {name} is not finite after it")
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


def diverged(step: int, stage: int, how: str) -> RunError:
    """Return the error of a training that cannot continue after a gradient step of a stage."""
    return RunError(
        f"training diverged at gradient step {step} of stage {stage}: {how}; lower optim.lr "
        "or the weight of the largest term, or raise model.min_std. The last saved state and earlier "
        "checkpoints are unchanged"
    )


def checked_losses(strategy: str, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the losses of a strategy if they can be minimised and logged. Raises ConfigError."""
    scalars = isinstance(losses, dict) and all(isinstance(x, torch.Tensor) and x.ndim == 0 for x in losses.values())
    if not scalars or "loss" not in losses:
        got = {name: getattr(x, "shape", x) for name, x in losses.items()} if isinstance(losses, dict) else losses
        raise ConfigError(
            f'strategy {strategy}: loss() returned {got!r:.200}, expected a dict of scalar tensors with the key "loss"'
        )
    return losses


def update_average(average: dict[str, torch.Tensor], policy: Policy, max_decay: float, step: int) -> None:
    """Move the running average of the weights towards the policy after gradient step `step` of a phase."""
    decay = min(max_decay, step / (step + 10))  # short at first, to forget the initial weights
    weights = policy.state_dict()
    moved = [name for name, x in weights.items() if x.is_floating_point()]
    torch._foreach_lerp_([average[name] for name in moved], [weights[name] for name in moved], 1 - decay)
    for name in weights.keys() - set(moved):
        average[name].copy_(weights[name])
