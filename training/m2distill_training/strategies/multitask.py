"""All tasks jointly (LIBERO's Multitask), the upper bound: protocols.plan gives it one step that holds them all."""

from m2distill_training.strategies.base import Strategy


class MultiTask(Strategy):
    pass
