"""Hyper-parameters of the built-in strategies. This module imports no torch, so that `--help` is quick.

A configuration is a frozen dataclass in which every field has a default. The name of the class without "Config", in
lower case, is the prefix of its options: `DistillConfig.image` is `--distill.image`. A class method
`for_preset(name)` may return other values for a preset.
"""

from dataclasses import dataclass

from m2distill_training.utils.checks import require_one_of, require_range

DISTILL_ON = ("current", "replay", "both")
KL_DIRECTIONS = ("teacher_student", "student_teacher")


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
    """Weights of the four distillation terms, see losses/distill.py; a term of weight 0 is not computed.

    The weights are ours: the paper's are not published.
    """

    image: float = 1.0  # weight of the distance between the view tokens
    text: float = 1.0  # weight of the distance between the projected text tokens
    extra: float = 1.0  # weight of the distance between the joint tokens and between the gripper tokens
    policy: float = 1.0  # weight of the divergence between the action mixtures
    kl_samples: int = 16  # actions drawn per sample and time step
    kl_direction: str = "teacher_student"  # "teacher_student" is KL(teacher || student); or "student_teacher"
    on: str = "replay"  # samples that the terms are computed on: current, replay or both

    def __post_init__(self):
        for name in ("image", "text", "extra", "policy"):
            require_range(f"distill.{name}", getattr(self, name), 0)
        require_range("distill.kl_samples", self.kl_samples, 1)
        require_one_of("distill.kl_direction", self.kl_direction, KL_DIRECTIONS)
        require_one_of("distill.on", self.on, DISTILL_ON)

    @classmethod
    def for_preset(cls, preset: str) -> "DistillConfig":
        """Return the values for a preset."""
        return cls(on="both") if preset == "libero" else cls()
