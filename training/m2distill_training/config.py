"""TrainConfig: all that determines a training run. A preset (presets.py) is a function returning a full one.

Frozen, written to the run folder as strict JSON, and compared field by field on resume.
"""

import dataclasses
import functools
import json
import math
from dataclasses import dataclass
from typing import Any

from m2distill_policy.cameras import CAMERAS, Camera
from m2distill_policy.models.config import ModelConfig
from m2distill_policy.robot import same_robot
from m2distill_policy.spec import HAND_POSE, PANDA_JOINTS, STATES, PolicySpec, libero_spec
from m2distill_policy.utils.schema import SCHEMA, with_schema, without_schema
from m2distill_training.strategies.registry import config_class, config_values, read_config
from m2distill_training.utils.checks import ConfigError, require_one_of, require_range
from m2distill_training.utils.dataclass_json import read_dataclass

__all__ = [
    "PAIRINGS",
    "AugmentConfig",
    "ConfigError",
    "OptimConfig",
    "ProtocolConfig",
    "ReplayConfig",
    "TrainConfig",
    "differences",
]

PAIRINGS = ("before", "as_stored")  # of observation and action, see data/libero/reader.py
PRECISIONS = ("float32", "bfloat16")
AUTO = "auto"
BUDGET_UNITS = ("steps", "epochs")
REPLAY_CHOICES = ("random", "coverage")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, created again for every stage; the rate falls along a cosine from lr to min_lr over the budget."""

    batch_size: int  # windows of the current task per gradient step
    accumulate: int  # parts of the batch that are learned one after the other: less memory, the same gradient
    budget: int  # of a stage, in budget_unit
    budget_unit: str  # "steps": gradient steps per task that it learns; "epochs": the rate changes once per epoch
    lr: float  # after the warm-up
    min_lr: float  # at the end of the budget
    warmup_steps: int  # linear rise of the rate, in gradient steps
    weight_decay: float  # AdamW's
    beta1: float  # AdamW's, of the gradient's mean
    beta2: float  # AdamW's, of its square
    grad_clip: float  # limit of the gradient's L2 norm
    ema_decay: float  # of the averaged weights that are saved and rolled out; 0 saves the last weights themselves
    later_lr: float = 1.0  # factor of both rates in every stage after the first

    def __post_init__(self):
        require_one_of("optim.budget_unit", self.budget_unit, BUDGET_UNITS)
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
            ("later_lr", 1e-6, 1000),
        ):
            require_range(f"optim.{name}", getattr(self, name), low, high)


@dataclass(frozen=True)
class AugmentConfig:
    """Image augmentation, see augment.py; 0 switches either part off."""

    color: float  # largest relative change of brightness, contrast, saturation; of hue in half turns
    color_probability: float  # of a sample being changed at all
    crop_pad_px: int  # replicate padding before a random crop back to size

    @property
    def is_off(self) -> bool:
        return (self.color == 0 or self.color_probability == 0) and self.crop_pad_px == 0

    def __post_init__(self):
        require_range("augment.color", self.color, 0, 0.5)
        require_range("augment.color_probability", self.color_probability, 0, 1)
        require_range("augment.crop_pad_px", self.crop_pad_px, 0, 64)


@dataclass(frozen=True)
class ProtocolConfig:
    """How the tasks are divided into stages, and how much of each is learned; see protocols.py."""

    name: str  # a label; --protocol sets it and the values, any of which may be changed
    stage_tasks: tuple[int, ...]  # number of tasks that each stage learns jointly; empty: one task per stage
    stage_demos: tuple[int, ...]  # demos of each task, per stage; one number: for all stages; empty: all demos

    def __post_init__(self):
        for name in ("stage_tasks", "stage_demos"):
            for value in getattr(self, name):
                require_range(f"protocol.{name}", value, 1)
        if len(self.stage_demos) > 1 and self.stage_tasks and len(self.stage_demos) != len(self.stage_tasks):
            raise ConfigError(
                f"protocol.stage_demos has {len(self.stage_demos)} numbers for "
                f"{len(self.stage_tasks)} stages; give one per stage, or one for all"
            )


@dataclass(frozen=True)
class ReplayConfig:
    """The memory of earlier tasks, see data/replay.py. Both limits hold."""

    demos_per_task: int  # whole demos kept of every earlier task
    total_demos: int  # whole demos kept of all earlier tasks together; 0: no limit
    batch_size: int  # windows of earlier tasks added to every batch
    held_out_demos: int  # whole demos of every task that no stage learns; they test later stages without a simulation
    choice: str = "random"  # of the demos that are kept: random, or coverage (far apart in their joint trajectories)
    phases: bool = False  # windows of all phases between changes of the gripper's command are replayed equally often

    def __post_init__(self):
        require_one_of("replay.choice", self.choice, REPLAY_CHOICES)
        require_range("replay.demos_per_task", self.demos_per_task, 1)
        require_range("replay.total_demos", self.total_demos, 0)
        require_range("replay.batch_size", self.batch_size, 1)
        require_range("replay.held_out_demos", self.held_out_demos, 0)


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a training run."""

    preset: str  # where the values come from: libero, small or debug; any may have been changed since
    strategy: str  # a name of docs/method.md, such as er or m2distill, or module:Class
    seed: int  # of weights, order, augmentation and what is replayed
    text_encoder: str  # "auto": the first that is usable here; the run folder records which one it was
    image_px: int  # side of the images that the network sees
    history: int  # T, steps in a window
    pairing: str  # before: an action with the observation before it; as_stored: with the one beside it in the file
    precision: str  # of the convolutions: float32, bfloat16, or "auto": bfloat16 if the device has instructions for it
    log_every: int  # gradient steps
    save_every: int  # gradient steps between saved states
    curve_points: int  # checkpoints saved during a stage, from its first to its last gradient step; 0: none
    model: ModelConfig
    optim: OptimConfig
    augment: AugmentConfig
    protocol: ProtocolConfig
    replay: ReplayConfig
    strategy_config: Any  # hyper-parameters of the strategy: an instance of its Config
    cameras: tuple[Camera, ...] = CAMERAS  # views of the policy, in encoder order
    state: str = "joints"  # what the policy observes of the arm: joints, or hand (its pose, as LIBERO permits)

    def __post_init__(self):
        expected = config_class(self.strategy)
        if type(self.strategy_config) is not expected:
            raise ConfigError(
                f"strategy {self.strategy} takes a {expected.__name__}, got {type(self.strategy_config).__name__}; "
                "change the strategy with TrainConfig.with_strategy"
            )
        if self.model.decoders:
            raise ConfigError("model.decoders is no setting: the strategy decoders adds them to the policy")
        require_one_of("pairing", self.pairing, PAIRINGS)
        require_one_of("state", self.state, STATES)
        require_one_of("precision", self.precision, (*PRECISIONS, AUTO))
        require_range("seed", self.seed, 0, 2**31 - 1)
        require_range("curve_points", self.curve_points, 0)
        for name in ("log_every", "save_every"):
            require_range(name, getattr(self, name), 1)

    def with_strategy(self, name: str, **values: Any) -> "TrainConfig":
        """Return this configuration with another strategy.

        Hyper-parameters are kept if both strategies have the same Config; otherwise they are those of the preset.

        Args:
            name: As for `--strategy`.
            **values: Hyper-parameters of the strategy to change.

        Raises:
            ConfigError: The strategy or a hyper-parameter is unknown, or a value is out of range.
        """
        same = config_class(name) is type(self.strategy_config)
        kept = vars(self.strategy_config) if same else {}
        chosen = config_values(name, self.preset, **(kept | values))
        return dataclasses.replace(self, strategy=name, strategy_config=chosen)

    def policy_spec(self, text_encoder: str, text_width: int, robot: PolicySpec | None = None) -> PolicySpec:
        """Return the spec of the policy that this configuration trains; `robot` as in the data, default LIBERO's."""
        arm = HAND_POSE if self.state == "hand" else PANDA_JOINTS
        spec = libero_spec(self.image_px, self.history, text_encoder, text_width, self.cameras, arm)
        return spec if robot is None else same_robot(spec, robot)

    def to_json(self) -> str:
        """Return the content of config.json."""
        values = dataclasses.asdict(self)
        del values["model"]["decoders"], values["model"]["own_encoders"]  # no settings
        return json.dumps(with_schema(values), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> "TrainConfig":
        """Return the configuration of a config.json.

        A key with a default may be missing: a later version added it. Anything else that differs raises UserError.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:  # the second: nested without end
            raise ConfigError(f"it is not JSON ({error})") from None
        if not isinstance(data, dict) or type(data.get("schema")) is not int:
            raise ConfigError("it has no schema number")
        if (schema := data["schema"]) < 1:
            raise ConfigError(f"its schema is {schema}, this version reads 1 to {SCHEMA}")
        data = without_schema(data)
        name = data.get("strategy")
        if not isinstance(name, str):
            raise ConfigError(f"strategy is {name!r:.80}, expected a name")
        readers = {"strategy_config": functools.partial(read_config, name)}
        return read_dataclass(TrainConfig, data, "config", readers)


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
