"""TrainConfig: all that determines a training run. A preset (presets.py) is a function returning a full one.

Frozen, written to the run folder as strict JSON, and compared field by field on resume.
"""

import dataclasses
import json
import math
from dataclasses import dataclass

from m2distill_policy.errors import UserError, unknown_name
from m2distill_policy.models.config import ModelConfig
from m2distill_policy.spec import strict_from_json

STRATEGY_NAMES = ("finetune", "er", "ewc", "packnet", "m2distill", "relabel", "multitask")
PAIRINGS = ("before", "as_stored")
PRECISIONS = ("float32", "bfloat16")
BUDGET_UNITS = ("steps", "epochs")
DISTILL_ON = ("current", "replay", "both")
KL_DIRECTIONS = ("teacher_student", "student_teacher")


class ConfigError(UserError):
    """A training configuration holds a value that is not allowed."""


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(unknown_name(name, value, allowed))


def _in_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        limit = f"{low} to {high}" if math.isfinite(high) else f"at least {low}"
        raise ConfigError(f"{name} is {value}, allowed {limit}")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, made anew at every task step; the rate falls along a cosine from lr to min_lr over the budget."""

    batch_size: int  # windows of the current task per gradient step
    accumulate: int  # parts of the batch that are learned one after the other: less memory, the same gradient
    budget: int  # of a task step, in budget_unit
    budget_unit: str  # "steps": gradient steps per task that it learns; "epochs": the rate changes once per epoch
    lr: float  # after the warm-up
    min_lr: float  # at the end of the budget
    warmup_steps: int  # linear rise of the rate, in gradient steps
    weight_decay: float  # AdamW's
    beta1: float  # AdamW's, of the gradient's mean
    beta2: float  # AdamW's, of its square
    grad_clip: float  # limit of the gradient's L2 norm
    ema_decay: float  # of the averaged weights that are saved and rolled out; 0 saves the last weights themselves

    def __post_init__(self):
        _one_of("optim.budget_unit", self.budget_unit, BUDGET_UNITS)
        for name, low, high in (
            ("batch_size", 1, math.inf),
            ("accumulate", 1, math.inf),
            ("budget", 1, math.inf),
            ("lr", 0, math.inf),
            ("min_lr", 0, self.lr),
            ("warmup_steps", 0, math.inf),
            ("weight_decay", 0, math.inf),
            ("beta1", 0, 0.99999),
            ("beta2", 0, 0.99999),
            ("grad_clip", 1e-6, math.inf),
            ("ema_decay", 0, 0.99999),
        ):
            _in_range(f"optim.{name}", getattr(self, name), low, high)


@dataclass(frozen=True)
class AugmentConfig:
    """Image augmentation, see augment.py; 0 switches either part off."""

    color: float  # largest relative change of brightness, contrast, saturation; of hue in half turns
    color_probability: float  # of a sample being changed at all
    crop_pad_px: int  # replicate padding before a random crop back to size

    def __post_init__(self):
        _in_range("augment.color", self.color, 0, 0.5)
        _in_range("augment.color_probability", self.color_probability, 0, 1)
        _in_range("augment.crop_pad_px", self.crop_pad_px, 0, 64)


@dataclass(frozen=True)
class ProtocolConfig:
    """How the tasks are divided into steps, and how much of each is learned; see protocols.py."""

    name: str  # a label; --protocol sets it and the values, any of which may be changed
    step_tasks: tuple[int, ...]  # of every step, the tasks it learns jointly; empty: one task per step
    step_demos: tuple[int, ...]  # of every step, the demos it learns of each task; one number: of all steps; empty: all

    def __post_init__(self):
        for name in ("step_tasks", "step_demos"):
            for value in getattr(self, name):
                _in_range(f"protocol.{name}", value, 1)
        if len(self.step_demos) > 1 and self.step_tasks and len(self.step_demos) != len(self.step_tasks):
            raise ConfigError(
                f"protocol.step_demos has {len(self.step_demos)} numbers for "
                f"{len(self.step_tasks)} steps; give one per step, or one for all"
            )


@dataclass(frozen=True)
class ReplayConfig:
    """The memory of earlier tasks, see data/replay.py. Both limits hold."""

    demos_per_task: int  # whole demos kept of every earlier task
    total_demos: int  # whole demos kept of all earlier tasks together; 0: no limit
    batch_size: int  # windows of earlier tasks added to every batch
    held_out_demos: int  # whole demos of every task that no step learns: they judge later steps without a simulation

    def __post_init__(self):
        _in_range("replay.demos_per_task", self.demos_per_task, 1)
        _in_range("replay.total_demos", self.total_demos, 0)
        _in_range("replay.batch_size", self.batch_size, 1)
        _in_range("replay.held_out_demos", self.held_out_demos, 0)


@dataclass(frozen=True)
class EwcConfig:
    weight: float  # of the penalty
    decay: float  # of the Fisher information at every further step

    def __post_init__(self):
        _in_range("ewc.weight", self.weight, 0)
        _in_range("ewc.decay", self.decay, 0, 1)


@dataclass(frozen=True)
class PackNetConfig:
    prune: float  # share of a step's weights that is given up for later steps
    retrain: float  # gradient steps after pruning, as a share of the budget

    def __post_init__(self):
        _in_range("packnet.prune", self.prune, 0.01, 0.99)
        _in_range("packnet.retrain", self.retrain, 0.01, 10)


@dataclass(frozen=True)
class DistillConfig:
    """Weights of the four distillation terms, see losses/distill.py; a term of weight 0 is not computed."""

    image: float  # of the views' tokens
    text: float  # of the projected text tokens
    extra: float  # of the joint and the gripper tokens
    policy: float  # of the divergence between the mixtures
    kl_samples: int  # actions drawn per (b, t)
    kl_direction: str  # "teacher_student" is KL(teacher || student)
    on: str  # which samples of the batch the terms see

    def __post_init__(self):
        for name in ("image", "text", "extra", "policy"):
            _in_range(f"distill.{name}", getattr(self, name), 0)
        _in_range("distill.kl_samples", self.kl_samples, 1)
        _one_of("distill.kl_direction", self.kl_direction, KL_DIRECTIONS)
        _one_of("distill.on", self.on, DISTILL_ON)


@dataclass(frozen=True)
class TrainConfig:
    preset: str  # where the values come from: libero, small or debug; any may have been changed since
    strategy: str  # finetune, er, ewc, packnet, m2distill, relabel or multitask (docs/method.md)
    seed: int  # of weights, order, augmentation and what is replayed
    text_encoder: str  # "auto": the first that is usable here; the run folder records which one it was
    image_px: int  # side of the images that the network sees
    history: int  # T, steps in a window
    pairing: str  # before: an action with the observation before it; as_stored: with the one beside it in the file
    precision: str  # of the forward pass: bfloat16 (autocast) or float32
    log_every: int  # gradient steps
    save_every: int  # gradient steps between saved states
    curve_points: int  # checkpoints kept while a step is learned, from its first to its last gradient step; 0: none
    model: ModelConfig
    optim: OptimConfig
    augment: AugmentConfig
    protocol: ProtocolConfig
    replay: ReplayConfig
    distill: DistillConfig
    ewc: EwcConfig
    packnet: PackNetConfig

    def __post_init__(self):
        _one_of("strategy", self.strategy, STRATEGY_NAMES)
        _one_of("pairing", self.pairing, PAIRINGS)
        _one_of("precision", self.precision, PRECISIONS)
        _in_range("seed", self.seed, 0, 2**31 - 1)
        _in_range("curve_points", self.curve_points, 0)
        for name in ("log_every", "save_every"):
            _in_range(name, getattr(self, name), 1)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> "TrainConfig":
        """Strict inverse of `to_json`; raises SpecError."""
        return strict_from_json(TrainConfig, text)


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """'optim.lr was 0.001, now 0.0003' for every field that differs."""
    a, b = _flat(dataclasses.asdict(old)), _flat(dataclasses.asdict(new))
    return [
        f"{name} was {a.get(name)!r}, now {b.get(name)!r}"
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name)
    ]


def _flat(values: dict, prefix: str = "") -> dict:
    flat: dict = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
