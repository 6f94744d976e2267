"""The task sequence: the only place that owns an optimiser.

Everything random in gradient step s of task step k is a function of (seed, k, s): the order of samples
(windows.batch_ids) and, by re-seeding torch before every step, dropout, augmentation and Monte-Carlo samples. So the
saved state needs no generator, and a run that was interrupted ends in the same weights as one that was not.

A task step has one phase of gradient steps or, where its strategy says so, several: each begins like a task step, from
the weights that would have been saved, with a new optimiser, average and schedule.
"""

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from m2distill_policy.models import Policy
from m2distill_policy.observation_tensors import to_model_input
from m2distill_policy.spec import PolicySpec, libero_spec
from m2distill_policy.text import default_text_encoder, load_text_encoder
from m2distill_training.augment import augment
from m2distill_training.config import OptimConfig, TrainConfig
from m2distill_training.data.libero_hdf5 import open_libero
from m2distill_training.data.replay import choose_memory
from m2distill_training.data.store import open_store
from m2distill_training.data.windows import Part, Windows, batch_ids
from m2distill_training.protocols import plan
from m2distill_training.run import RunError, RunFolder, open_run
from m2distill_training.strategies import Samples, make_strategy
from m2distill_training.strategies.memory import load_memory, save_memory

CURRENT_ORDER, REPLAY_ORDER = 0, 1  # tell the two sample orders of one task step apart


@dataclass(frozen=True)
class Progress:
    """Given to `on_step` after every gradient step."""

    task_step: int  # k, from 0
    task_steps: int
    step: int  # gradient steps done in this task step
    steps: int
    losses: dict[str, float]
    lr: float
    steps_per_s: float


def train(config: TrainConfig, datasets: list[Path], out: Path, *, resume: bool = False, device: str = "cpu",
          start_from: Path | None = None, cache: Path | None = None, instructions: Sequence[str] | None = None,
          on_step: Callable[[Progress], None] = lambda progress: None) -> RunFolder:
    """Learn the datasets' tasks, divided into steps by config.protocol; steps/<k>/checkpoint appears in `out` after
    each.

    `start_from` is another run's checkpoint that takes the place of the first step: a strategy that remembers nothing
    but the policy learns its first step like any other, so a control run need not repeat it. `instructions` replace
    those in the files. Ctrl-C saves the state after the gradient step in progress and raises KeyboardInterrupt;
    `resume` goes on from there. Raises UserError.
    """
    own, n_demos = _survey(datasets, config)  # first: what is wrong with the files or the plan shows at once
    instructions = own if instructions is None else list(instructions)
    _check_distinct(datasets, instructions)
    lessons = plan(config, datasets, n_demos)
    if start_from is not None and make_strategy(config).remembers:
        raise RunError(f"{config.strategy} needs more of the first step than a checkpoint holds; "
                       "leave --start-from out")
    encoder = default_text_encoder() if config.text_encoder == "auto" else load_text_encoder(config.text_encoder)
    config = dataclasses.replace(config, text_encoder=encoder.name)
    spec = libero_spec(config.image_px, config.history, encoder.name, encoder.width)
    stores = [dataclasses.replace(open_store(path, spec, config.pairing, cache), instruction=text)
              for path, text in zip(datasets, instructions, strict=True)]
    embeddings = encoder.encode(instructions)
    steps = [[Part(stores[x.task], embeddings[x.task], x.demos) for x in step] for step in lessons]
    data = [{"path": str(s.source), "key": s.key, "instruction": s.instruction, "demos": s.n_demos} for s in stores]
    with open_run(out, config, data, resume) as run, _deferred_interrupt() as interrupted:
        policy: Policy | None = None
        for k in range(len(steps)):
            if k == 0 and start_from is not None and not run.checkpoint(0).is_dir():
                _adopt(start_from, run, config, spec, [part.store.instruction for part in steps[0]])
            if not run.checkpoint(k).is_dir():
                learner = _Learner(config, spec, device, k, steps[:k + 1], policy, run)
                learner.run(len(steps), on_step, interrupted)
                learner.finish(interrupted)
            policy = Policy(config.model, spec)
            policy.load_state_dict(load_checkpoint(run.checkpoint(k)).state_dict)
        return run


def _survey(datasets: Sequence[Path], config: TrainConfig) -> tuple[list[str], list[int]]:
    """The instruction and the number of demos of every dataset."""
    found = []
    for path in datasets:
        with open_libero(path, config.pairing) as file:
            found.append((file.instruction, len(file.demo_names)))
    return [text for text, _ in found], [n for _, n in found]


def _check_distinct(datasets: Sequence[Path], instructions: Sequence[str]) -> None:
    for i, (path, text) in enumerate(zip(datasets, instructions, strict=True)):
        if text in instructions[:i]:
            raise RunError(f"{path} holds the instruction {text!r} like another dataset before it; "
                           "give one file per task")


def _adopt(source: Path, run: RunFolder, config: TrainConfig, spec: PolicySpec, instructions: list[str]) -> None:
    checkpoint = load_checkpoint(source)
    if (checkpoint.model_config, checkpoint.spec) != (config.model, spec):
        raise RunError(f"{source} has another network or spec than this run; train both with the same preset")
    if set(checkpoint.instructions) != set(instructions):
        raise RunError(f"{source} has learned {sorted(checkpoint.instructions)}, the first step here is {instructions}")
    save_checkpoint(run.checkpoint(0), checkpoint)


class _Learner:
    """One task step: data, network, optimiser. `steps`: the parts of this step and of all before it."""

    def __init__(self, config: TrainConfig, spec: PolicySpec, device: str, k: int, steps: list[list[Part]],
                 previous: Policy | None, run: RunFolder):
        self.config, self.device, self.k, self.folder = config, torch.device(device), k, run
        self.strategy = make_strategy(config)
        self.new, self.old = steps[k], [part for step in steps[:k] for part in step]
        self.current = Windows(self.new, config.history)
        self.replay, self.kept = None, {}
        if self.old and self.strategy.uses_replay:
            chosen = choose_memory([part.store.n_demos for part in self.old], [len(part.demos) for part in self.old],
                                   config.replay.demos_per_task, config.replay.total_demos, config.seed)
            kept = [dataclasses.replace(part, demos=demos)
                    for part, demos in zip(self.old, chosen, strict=True) if demos]
            self.kept = {part.store.instruction: list(part.demos) for part in kept}
            self.replay = Windows(kept, config.history)
        torch.manual_seed(config.seed)
        self.policy = Policy(config.model, spec)
        if previous is not None:
            self.policy.load_state_dict(previous.state_dict())
        self.policy.to(self.device).train()
        if previous is not None and self.strategy.remembers:
            self._set_memory(load_memory(self._memory_path(k - 1)))
        self.strategy.begin_task(self.policy, None if previous is None else previous.to(self.device))
        o = config.optim
        self.per_epoch = math.ceil(len(self.current) / o.batch_size)
        budget = o.budget * (len(self.new) if o.budget_unit == "steps" else self.per_epoch)
        self.phases = [max(1, round(share * budget)) for share in self.strategy.phases]
        self.steps = sum(self.phases)
        self.step = 0
        self.losses: dict[str, float] = {}
        self._begin_optimiser()

    def _begin_optimiser(self) -> None:
        o = self.config.optim
        self.average = {name: x.clone() for name, x in self.policy.state_dict().items()} if o.ema_decay > 0 else None
        self.optimiser = torch.optim.AdamW(self.policy.parameters(), lr=o.lr, betas=(o.beta1, o.beta2),
                                           weight_decay=o.weight_decay, fused=True)

    def _phase(self) -> tuple[int, int]:
        """First gradient step and number of gradient steps of the phase that the next gradient step belongs to."""
        start = 0
        for length in self.phases:
            if self.step < start + length:
                break
            start += length
        return start, length

    def run(self, task_steps: int, on_step: Callable[[Progress], None], interrupted: threading.Event) -> None:
        run = self.folder
        if state := run.load_state(self.k):
            self._restore(state)
        run.forget_metrics_after(self.k, self.step)
        run.write_json(f"steps/{self.k}/replay.json", self.kept)
        curve = self._curve_points()
        self._keep_point(curve)
        began, begun_at = time.monotonic(), self.step
        while self.step < self.steps:
            lr, grad_norm = self._gradient_step()
            rate = (self.step - begun_at) / (time.monotonic() - began)
            if self.step % self.config.log_every == 0 or self.step == self.steps:
                run.log({"task_step": self.k, "step": self.step, **self.losses, "lr": lr, "grad_norm": grad_norm,
                         "steps_per_s": round(rate, 3)})
            self._keep_point(curve)
            on_step(Progress(self.k, task_steps, self.step, self.steps, self.losses, lr, rate))
            if interrupted.is_set() or self.step % self.config.save_every == 0 or self.step == self.steps:
                run.save_state(self.k, self._state())
            if interrupted.is_set():
                raise KeyboardInterrupt

    def finish(self, interrupted: threading.Event) -> None:
        """Write the step's checkpoint, and before it what else the next step needs; then its state is not needed."""
        self._load_average()
        self.strategy.end_task(self.policy, self._epoch(interrupted))
        if self.strategy.remembers:
            save_memory(self._memory_path(self.k), self.strategy.memory)
        save_checkpoint(self.folder.checkpoint(self.k), self._checkpoint())
        self.folder.state(self.k).unlink(missing_ok=True)

    def _curve_points(self) -> dict[int, int]:
        """Gradient step -> number of the curve's point. LIBERO's forward transfer is the mean success over epochs 0, 5,
        .. 50, which curve_points=10 gives; what PackNet learns after pruning does not count, there as here."""
        n = self.config.curve_points
        return {round(i * self.phases[0] / n): i for i in range(n + 1)} if n > 0 else {}

    def _keep_point(self, curve: dict[int, int]) -> None:
        if self.step in curve:
            path = self.folder.checkpoint(self.k).with_name("curve") / str(curve[self.step])
            save_checkpoint(path, self._checkpoint())

    def _checkpoint(self) -> Checkpoint:
        weights = self.policy.state_dict() if self.average is None else self.average
        known = [*self.old, *self.new] if self.strategy.knows_all else self.new
        metrics = {"task_step": self.k, "strategy": self.config.strategy, "preset": self.config.preset,
                   "protocol": self.config.protocol.name, "seed": self.config.seed, "gradient_steps": self.step,
                   "losses": self.losses, "replayed_demos": self.kept,
                   **self.folder.lineage(self.k, [part.store.instruction for part in (*self.old, *self.new)])}
        return Checkpoint(spec=self.policy.spec, model_config=self.config.model,
                          state_dict={name: x.detach().cpu() for name, x in weights.items()},
                          instructions={part.store.instruction: part.text for part in known}, metrics=metrics)

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

    def _memory_path(self, k: int) -> Path:
        return self.folder.checkpoint(k).with_name("memory.safetensors")

    def _set_memory(self, memory: dict[str, torch.Tensor]) -> None:
        self.strategy.memory = {name: x.to(self.device) for name, x in memory.items()}

    def _seed(self, step: int) -> None:
        torch.manual_seed(int(np.random.SeedSequence([self.config.seed, self.k, step]).generate_state(1)[0]))

    def _gradient_step(self) -> tuple[float, float]:
        o = self.config.optim
        start, length = self._phase()
        if self.step == start > 0:
            self._load_average()
            self.strategy.begin_phase(self.policy)
            self._begin_optimiser()
        self._seed(self.step)
        lr = learning_rate(o, self.step - start, length, self.per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        samples = self._samples(self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            losses = self.strategy.loss(self.policy, samples)
        self.optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), o.grad_clip).item()
        values = {name: x.item() for name, x in losses.items()}
        if not (math.isfinite(grad_norm) and all(math.isfinite(x) for x in values.values())):
            raise self._diverged(f"{values}, gradient norm {grad_norm}")
        self.strategy.update(self.policy, self.optimiser)
        self.losses, self.step = values, self.step + 1
        if self.average is not None:
            self._update_average(self.step - start)
        return lr, grad_norm

    def _samples(self, step: int, replay: bool = True) -> Samples:
        seed, o = (self.config.seed, self.k), self.config.optim
        batch = self.current.gather(batch_ids(len(self.current), o.batch_size, step, (*seed, CURRENT_ORDER)))
        if replay and self.replay is not None:
            ids = batch_ids(len(self.replay), self.config.replay.batch_size, step, (*seed, REPLAY_ORDER))
            batch = _concatenate(batch, self.replay.gather(ids))
        inputs = to_model_input(batch["images"], batch["joint"], batch["gripper"], batch["text"])
        images = {name: x.to(self.device) for name, x in inputs["images"].items()}
        inputs = {**{name: inputs[name].to(self.device) for name in ("joint", "gripper", "text")},
                  "images": augment(images, self.config.augment)}
        return Samples(inputs, torch.from_numpy(batch["action"]).to(self.device), o.batch_size)

    def _update_average(self, step: int) -> None:
        decay = min(self.config.optim.ema_decay, step / (step + 10))  # short memory first: forget the start
        for name, x in self.policy.state_dict().items():
            if x.is_floating_point():
                self.average[name].lerp_(x, 1 - decay)
            else:
                self.average[name].copy_(x)

    def _state(self) -> dict:
        for name, x in self.policy.state_dict().items():
            if not torch.isfinite(x).all():  # the loss that would show it comes only with the next gradient step
                raise self._diverged(f"weight {name} is not finite after it")
        return {"step": self.step, "losses": self.losses, "policy": self.policy.state_dict(), "average": self.average,
                "optimiser": self.optimiser.state_dict(), "memory": self.strategy.memory}

    def _restore(self, state: dict) -> None:
        self.step, self.losses = state["step"], state["losses"]
        self.policy.load_state_dict(state["policy"])
        self.optimiser.load_state_dict(state["optimiser"])
        self._set_memory(state["memory"])
        if self.average is not None:
            self.average = {name: x.to(self.device) for name, x in state["average"].items()}

    def _diverged(self, how: str) -> RunError:
        return RunError(f"training diverged at gradient step {self.step} of task step {self.k}: {how}; lower optim.lr "
                        "or the weight of the largest term, or raise model.min_std. The last saved state and earlier "
                        "checkpoints are untouched")


def learning_rate(o: OptimConfig, step: int, steps: int, per_epoch: int) -> float:
    """The rate of gradient step `step`: a linear warm-up, and a cosine from lr at the start to min_lr at the end; in an
    epoch budget the cosine moves once per epoch (LIBERO steps torch's CosineAnnealingLR so)."""
    if step < o.warmup_steps:
        return o.lr * (step + 1) / o.warmup_steps
    position = (step if o.budget_unit == "steps" else step - step % per_epoch) / steps
    return o.min_lr + (o.lr - o.min_lr) * (1 + math.cos(math.pi * position)) / 2


def _concatenate(a: dict, b: dict) -> dict:
    return {key: _concatenate(a[key], b[key]) if isinstance(a[key], dict) else np.concatenate([a[key], b[key]])
            for key in a}


@contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C sets the event instead of tearing a gradient step apart; a second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals reach the main thread only
        return

    def on_interrupt(number, frame):
        event.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
