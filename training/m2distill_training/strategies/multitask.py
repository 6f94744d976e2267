"""All tasks learned together in one stage (LIBERO's Multitask): the upper bound."""

from m2distill_training.strategies.base import Strategy


class MultiTask(Strategy):
    """Behaviour cloning on all tasks together."""

    joint = True
