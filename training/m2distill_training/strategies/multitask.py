"""Joint training on all tasks (LIBERO's Multitask), the upper bound: protocols.plan puts all tasks in one stage."""

from m2distill_training.strategies.base import Strategy


class MultiTask(Strategy):
    """Behaviour cloning on all tasks together."""

    joint = True
