"""How a task step learns without losing the earlier ones. A strategy is a loss and what it remembers between steps."""

from m2distill_training.config import TrainConfig
from m2distill_training.strategies.base import Samples, Strategy
from m2distill_training.strategies.finetune import FineTune
from m2distill_training.strategies.m2distill import M2Distill

STRATEGIES = {"finetune": lambda config: FineTune(), "m2distill": lambda config: M2Distill(config.distill)}


def make_strategy(config: TrainConfig) -> Strategy:
    return STRATEGIES[config.strategy](config)


__all__ = ["STRATEGIES", "Samples", "Strategy", "make_strategy"]
