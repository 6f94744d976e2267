"""The task sequence: the only place that owns an optimiser.

Everything random in gradient step s of task step k is a function of (seed, k, s): the order of samples
(windows.batch_ids) and, by re-seeding torch before every step, dropout, augmentation and Monte-Carlo samples. So the
saved state needs no generator, and a run that was interrupted ends in the same weights as one that was not.
"""

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
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
from m2distill_training.data.replay import choose_demos
from m2distill_training.data.store import open_store
from m2distill_training.data.windows import Part, Windows, batch_ids
from m2distill_training.run import RunError, RunFolder, open_run
from m2distill_training.strategies import Samples, Strategy, make_strategy

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
          start_from: Path | None = None, cache: Path | None = None,
          on_step: Callable[[Progress], None] = lambda progress: None) -> RunFolder:
    """Learn the datasets' tasks one step after the other; steps/<k>/checkpoint appears in `out` after each.

    `start_from` is another run's checkpoint that takes the place of the first step (the first step of every strategy
    is the same, so a control run need not repeat it). Ctrl-C saves the state after the gradient step in progress and
    raises KeyboardInterrupt; `resume` goes on from there. Raises UserError.
    """
    instructions = _instructions(datasets, config)  # first: what is wrong with the files shows at once
    encoder = default_text_encoder() if config.text_encoder == "auto" else load_text_encoder(config.text_encoder)
    config = dataclasses.replace(config, text_encoder=encoder.name)
    spec = libero_spec(config.image_px, config.history, encoder.name, encoder.width)
    stores = [open_store(path, spec, config.pairing, cache) for path in datasets]
    first = config.first_step_tasks
    steps = [stores[:first]] + [[store] for store in stores[first:]]
    embeddings = dict(zip(instructions, encoder.encode(instructions), strict=True))
    data = [{"path": str(s.source), "key": s.key, "instruction": s.instruction, "demos": s.n_demos} for s in stores]
    with open_run(out, config, data, resume) as run, _deferred_interrupt() as interrupted:
        policy: Policy | None = None
        for k in range(len(steps)):
            if k == 0 and start_from is not None and not run.checkpoint(0).is_dir():
                _adopt(start_from, run, config, spec, [s.instruction for s in steps[0]])
            if not run.checkpoint(k).is_dir():
                parts = [[Part(store, embeddings[store.instruction]) for store in step] for step in steps[:k + 1]]
                learner = _Learner(config, spec, device, k, len(steps), parts, policy)
                learner.run(run, on_step, interrupted)
                seen = [store.instruction for step in steps[:k + 1] for store in step]
                save_checkpoint(run.checkpoint(k), learner.checkpoint({text: embeddings[text] for text in seen}))
                run.state(k).unlink(missing_ok=True)
            policy = Policy(config.model, spec)
            policy.load_state_dict(load_checkpoint(run.checkpoint(k)).state_dict)
        return run


def _instructions(datasets: list[Path], config: TrainConfig) -> list[str]:
    """The instruction of every dataset; RunError unless there are enough of them and no two are the same task."""
    if len(datasets) < config.first_step_tasks:
        raise RunError(f"{len(datasets)} datasets given, the first step alone learns {config.first_step_tasks}; "
                       "add datasets or lower first_step_tasks")
    instructions = []
    for path in datasets:
        with open_libero(path, config.pairing) as file:
            if file.instruction in instructions:
                raise RunError(f"{path} holds the instruction {file.instruction!r} like another dataset before it; "
                               "give one file per task")
            instructions.append(file.instruction)
    return instructions


def _adopt(source: Path, run: RunFolder, config: TrainConfig, spec: PolicySpec, instructions: list[str]) -> None:
    checkpoint = load_checkpoint(source)
    if (checkpoint.model_config, checkpoint.spec) != (config.model, spec):
        raise RunError(f"{source} has another network or spec than this run; train both with the same preset")
    if set(checkpoint.instructions) != set(instructions):
        raise RunError(f"{source} has learned {sorted(checkpoint.instructions)}, the first step here is {instructions}")
    save_checkpoint(run.checkpoint(0), checkpoint)


class _Learner:
    """One task step: data, network, optimiser."""

    def __init__(self, config: TrainConfig, spec: PolicySpec, device: str, k: int, n_steps: int,
                 parts: list[list[Part]], previous: Policy | None):
        self.config, self.device, self.k, self.n_steps = config, torch.device(device), k, n_steps
        self.strategy: Strategy = make_strategy(config)
        self.current = Windows(parts[k], config.history)
        self.replay, self.kept = None, {}
        if k > 0 and self.strategy.uses_replay:
            old = [part for step in parts[:k] for part in step]
            old = [dataclasses.replace(part, demos=choose_demos(part.store.n_demos, config.replay.demos_per_task,
                                                                config.seed, task)) for task, part in enumerate(old)]
            self.kept = {part.store.instruction: part.demos for part in old}
            self.replay = Windows(old, config.history)
        torch.manual_seed(config.seed)
        self.policy = Policy(config.model, spec)
        if previous is not None:
            self.policy.load_state_dict(previous.state_dict())
        self.policy.to(self.device)
        self.strategy.begin_task(None if previous is None else previous.to(self.device))
        o = config.optim
        self.average = {name: x.clone() for name, x in self.policy.state_dict().items()} if o.ema_decay > 0 else None
        self.optimiser = torch.optim.AdamW(self.policy.parameters(), lr=o.lr, betas=(o.beta1, o.beta2),
                                           weight_decay=o.weight_decay, fused=True)
        self.per_epoch = math.ceil(len(self.current) / o.batch_size)
        self.steps = o.budget if o.budget_unit == "steps" else o.budget * self.per_epoch
        self.step = 0
        self.losses: dict[str, float] = {}

    def run(self, run: RunFolder, on_step: Callable[[Progress], None], interrupted: threading.Event) -> None:
        if state := run.load_state(self.k):
            self._restore(state)
        run.forget_metrics_after(self.k, self.step)
        run.write_json(f"steps/{self.k}/replay.json", {text: list(demos) for text, demos in self.kept.items()})
        self.policy.train()
        began, begun_at = time.monotonic(), self.step
        while self.step < self.steps:
            lr, grad_norm = self._gradient_step()
            rate = (self.step - begun_at) / (time.monotonic() - began)
            if self.step % self.config.log_every == 0 or self.step == self.steps:
                run.log({"task_step": self.k, "step": self.step, **self.losses, "lr": lr, "grad_norm": grad_norm,
                         "steps_per_s": round(rate, 3)})
            on_step(Progress(self.k, self.n_steps, self.step, self.steps, self.losses, lr, rate))
            if interrupted.is_set() or self.step % self.config.save_every == 0:
                run.save_state(self.k, self._state())
            if interrupted.is_set():
                raise KeyboardInterrupt

    def _gradient_step(self) -> tuple[float, float]:
        o = self.config.optim
        torch.manual_seed(int(np.random.SeedSequence([self.config.seed, self.k, self.step]).generate_state(1)[0]))
        lr = learning_rate(o, self.step, self.steps, self.per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        samples = self._samples()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            losses = self.strategy.loss(self.policy, samples)
        self.optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), o.grad_clip).item()
        values = {name: x.item() for name, x in losses.items()}
        if not (math.isfinite(grad_norm) and all(math.isfinite(x) for x in values.values())):
            raise RunError(f"training diverged at gradient step {self.step} of task step {self.k}: "
                           f"{values}, gradient norm {grad_norm}; lower optim.lr or raise model.min_std. "
                           "The last saved state and earlier checkpoints are untouched")
        self.optimiser.step()
        self.losses, self.step = values, self.step + 1
        if self.average is not None:
            self._update_average()
        return lr, grad_norm

    def _samples(self) -> Samples:
        seed, o = (self.config.seed, self.k), self.config.optim
        batch = self.current.gather(batch_ids(len(self.current), o.batch_size, self.step, (*seed, CURRENT_ORDER)))
        if self.replay is not None:
            ids = batch_ids(len(self.replay), self.config.replay.batch_size, self.step, (*seed, REPLAY_ORDER))
            batch = _concatenate(batch, self.replay.gather(ids))
        inputs = to_model_input(batch["images"], batch["joint"], batch["gripper"], batch["text"])
        images = {name: x.to(self.device) for name, x in inputs["images"].items()}
        inputs = {**{name: inputs[name].to(self.device) for name in ("joint", "gripper", "text")},
                  "images": augment(images, self.config.augment)}
        return Samples(inputs, torch.from_numpy(batch["action"]).to(self.device), o.batch_size)

    def _update_average(self) -> None:
        decay = min(self.config.optim.ema_decay, self.step / (self.step + 10))  # short memory first: forget the start
        for name, x in self.policy.state_dict().items():
            if x.is_floating_point():
                self.average[name].lerp_(x, 1 - decay)
            else:
                self.average[name].copy_(x)

    def _state(self) -> dict:
        return {"step": self.step, "losses": self.losses, "policy": self.policy.state_dict(), "average": self.average,
                "optimiser": self.optimiser.state_dict()}

    def _restore(self, state: dict) -> None:
        self.step, self.losses = state["step"], state["losses"]
        self.policy.load_state_dict(state["policy"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average = {name: x.to(self.device) for name, x in state["average"].items()}

    def checkpoint(self, instructions: dict[str, np.ndarray]) -> Checkpoint:
        weights = self.policy.state_dict() if self.average is None else self.average
        metrics = {"task_step": self.k, "strategy": self.config.strategy, "preset": self.config.preset,
                   "seed": self.config.seed, "gradient_steps": self.step, "losses": self.losses,
                   "replayed_demos": {text: list(demos) for text, demos in self.kept.items()}}
        return Checkpoint(spec=self.policy.spec, model_config=self.config.model,
                          state_dict={name: x.detach().cpu() for name, x in weights.items()},
                          instructions=instructions, metrics=metrics)


def learning_rate(o: OptimConfig, step: int, steps: int, per_epoch: int) -> float:
    """The rate of gradient step `step`: a linear warm-up, and a cosine from lr at the start to min_lr at the end; in an
    epoch budget the cosine moves once per epoch (LIBERO steps torch's CosineAnnealingLR so)."""
    if step < o.warmup_steps:
        return o.lr * (step + 1) / o.warmup_steps
    position = step / steps if o.budget_unit == "steps" else (step // per_epoch) / o.budget
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
