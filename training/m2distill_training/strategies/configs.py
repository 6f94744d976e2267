"""Hyper-parameters of the built-in strategies. This module imports no torch, so that `--help` is quick.

A configuration is a frozen dataclass in which every field has a default. The name of the class without "Config", in
lower case, is the prefix of its options: `DistillConfig.image` is `--distill.image`. A class method
`for_preset(name)` may return other values for a preset.
"""

from dataclasses import dataclass, replace
from typing import cast

from m2distill_training.utils.checks import ConfigError, require_one_of, require_range

TERMS = ("image", "text", "extra", "policy")
DISTILL_ON = ("current", "replay", "both", "relabelled")
UNITS = ("token", "teacher")
KL_DIRECTIONS = ("teacher_student", "student_teacher")


def option_prefix(config: type) -> str:
    """Return the prefix of the options of a configuration class: "distill" for `DistillConfig`."""
    return (config.__name__.removesuffix("Config") or config.__name__).lower()


@dataclass(frozen=True)
class NoConfig:
    """The configuration of a strategy without hyper-parameters."""


@dataclass(frozen=True)
class EwcConfig:
    """Elastic weight consolidation, see strategies/ewc.py. Defaults: LIBERO's configs/lifelong/ewc.yaml."""

    weight: float = 50000.0  # weight of the penalty in the loss
    decay: float = 0.9  # factor of the accumulated Fisher information at every further task

    def __post_init__(self):
        require_range("ewc.weight", self.weight, 0)
        require_range("ewc.decay", self.decay, 0, 1)


@dataclass(frozen=True)
class PackNetConfig:
    """PackNet, see strategies/packnet.py. Defaults: LIBERO's configs/lifelong/packnet.yaml, 50 epochs and 50 more."""

    prune: float = 0.75  # share of the weights of a task that is released for later tasks
    retrain: float = 1.0  # gradient steps after pruning, as a share of the budget

    def __post_init__(self):
        require_range("packnet.prune", self.prune, 0.01, 0.99)
        require_range("packnet.retrain", self.retrain, 0.01, 10)


@dataclass(frozen=True)
class DistillConfig:
    """Distillation terms of m2distill and its variants, see losses/distill.py; a term of weight 0 is not computed.

    The weights are ours: the paper's are not published. The defaults are fixed weights in the unit of the tokens; the
    presets balance the terms.
    """

    image: float = 1.0  # weight of the distance between the view tokens
    text: float = 1.0  # weight of the distance between the projected text tokens
    extra: float = 1.0  # weight of the distance between the joint tokens and between the gripper tokens
    policy: float = 1.0  # weight of the divergence between the action mixtures
    kl_samples: int = 16  # actions drawn per sample and time step
    kl_direction: str = "teacher_student"  # "teacher_student" is KL(teacher || student); or "student_teacher"
    on: str = "replay"  # samples of the terms: current, replay, both or relabelled; replay includes relabelled ones
    image_on: str | None = None  # samples of the image term, if they are not those of distill.on
    text_on: str | None = None  # samples of the text term, if they are not those of distill.on
    extra_on: str | None = None  # samples of the extra term, if they are not those of distill.on
    policy_on: str | None = None  # samples of the policy term, if they are not those of distill.on
    unit: str = "token"  # of distances: token (mean square of a difference) or teacher (the teacher's variance is 1)
    balance_every: int = 0  # gradient steps between measurements by which weights become shares of cloning's gradient
    kl_min_std: float = 0.0  # standard deviation added in quadrature to both mixtures in the divergence
    clone_replay: bool = True  # behaviour cloning on replayed samples too; otherwise the terms alone keep their tasks

    def __post_init__(self):
        prefix = option_prefix(type(self))
        for name in TERMS:
            require_range(f"{prefix}.{name}", getattr(self, name), 0)
            if getattr(self, f"{name}_on") is not None:
                require_one_of(f"{prefix}.{name}_on", getattr(self, f"{name}_on"), DISTILL_ON)
        require_range(f"{prefix}.kl_samples", self.kl_samples, 1)
        require_one_of(f"{prefix}.kl_direction", self.kl_direction, KL_DIRECTIONS)
        require_one_of(f"{prefix}.on", self.on, DISTILL_ON)
        require_one_of(f"{prefix}.unit", self.unit, UNITS)
        require_range(f"{prefix}.balance_every", self.balance_every, 0)
        require_range(f"{prefix}.kl_min_std", self.kl_min_std, 0, 10)
        if not self.clone_replay and self.policy == 0:
            raise ConfigError(
                f"{prefix}.clone_replay is off and {prefix}.policy is 0, so that nothing keeps the actions of earlier "
                "tasks; allow one of them"
            )

    def samples_of(self, term: str) -> str:
        """Return the samples that a term is computed on."""
        return getattr(self, f"{term}_on") or self.on

    @classmethod
    def for_preset(cls, preset: str) -> "DistillConfig":
        """Return the values for a preset: balanced terms; no divergence where the teacher knows no answer."""
        return cls(
            image=0.3,
            text=0.4,
            extra=0.3,
            policy=0.6,
            on="both",
            policy_on="replay",
            unit="teacher",
            balance_every=1 if preset == "debug" else 20,
            kl_min_std=0.03,
        )


@dataclass(frozen=True)
class SpreadConfig(DistillConfig):
    """Distillation terms of spread, see strategies/spread.py: those of m2distill and two more settings."""

    rank: int = 48  # dimensions of the subspaces that hold the tokens
    confident: float = 0.9  # share of the actions drawn from the teacher that the divergence is computed on

    def __post_init__(self):
        super().__post_init__()
        require_range("spread.rank", self.rank, 1)
        require_range("spread.confident", self.confident, 0.01, 1)
        require_one_of("spread.kl_direction", self.kl_direction, ("teacher_student",))  # the actions are the teacher's


@dataclass(frozen=True)
class PerturbConfig(DistillConfig):
    """Distillation terms of perturb and latent_perturb, those of m2distill, and their perturbations.

    strategies/perturb.py describes them.
    """

    shift: float = 0.125  # largest shift of a view in each direction, as a share of its shorter side
    recombine: float = 0.5  # probability that a perturbed sample has joint and gripper state of another one
    own_instruction: float = 0.5  # probability that a replayed sample, perturbed, keeps its instruction

    def __post_init__(self):
        super().__post_init__()
        require_range("perturb.shift", self.shift, 0, 0.5)
        require_range("perturb.recombine", self.recombine, 0, 1)
        require_range("perturb.own_instruction", self.own_instruction, 0, 1)

    @classmethod
    def for_preset(cls, preset: str) -> "PerturbConfig":
        """Return the values for a preset: those of m2distill, without cloning on replayed samples."""
        return replace(cast(PerturbConfig, super().for_preset(preset)), policy=0.5, clone_replay=False)


@dataclass(frozen=True)
class AverageConfig(DistillConfig):
    """Distillation terms of average, those of m2distill, and its interpolation, see strategies/average.py."""

    coefficient: float = 0.8  # share of the weights that the stage learned; the rest are those of the previous stage

    def __post_init__(self):
        super().__post_init__()
        require_range("average.coefficient", self.coefficient, 0, 1)
