"""The thresholds of the promotion gate. Imports nothing slow: the command line shows them as options."""

import math
from dataclasses import dataclass

from m2distill_training.config import ConfigError


@dataclass(frozen=True)
class Thresholds:
    """What a checkpoint must reach to be promoted."""

    margin: float = 0.25  # loss of an earlier task's success rate that must be ruled out at 95 % confidence
    success: float = 0.5  # minimum success rate of the new task, in simulation
    nats: float = 1.0  # allowed loss of log-likelihood of an earlier task's held-out actions, per step
    drift: float = 0.5  # allowed shift of an earlier task's latents, as a share of their mean square

    def __post_init__(self):
        for name in ("margin", "success", "nats", "drift"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value}, allowed at least 0")
