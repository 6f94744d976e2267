"""Lifelong-learning strategies: a loss, and a memory that passes from stage to stage."""

from m2distill_training.config import TrainConfig
from m2distill_training.strategies.base import Samples, Strategy
from m2distill_training.strategies.er import ExperienceReplay
from m2distill_training.strategies.ewc import Ewc
from m2distill_training.strategies.finetune import FineTune
from m2distill_training.strategies.m2distill import M2Distill
from m2distill_training.strategies.multitask import MultiTask
from m2distill_training.strategies.packnet import PackNet
from m2distill_training.strategies.relabel import Relabel

STRATEGIES = {
    "finetune": lambda config: FineTune(),
    "er": lambda config: ExperienceReplay(),
    "ewc": lambda config: Ewc(config.ewc),
    "packnet": lambda config: PackNet(config.packnet),
    "m2distill": lambda config: M2Distill(config.distill),
    "relabel": lambda config: Relabel(config.distill),
    "multitask": lambda config: MultiTask(),
}


def make_strategy(config: TrainConfig) -> Strategy:
    """Return a new object of the configured strategy, for one stage."""
    return STRATEGIES[config.strategy](config)


__all__ = ["STRATEGIES", "Samples", "Strategy", "make_strategy"]
