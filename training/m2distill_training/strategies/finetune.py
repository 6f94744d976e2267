"""Plain fine-tuning (LIBERO's Sequential), the control: it forgets."""

from m2distill_training.strategies.base import Strategy


class FineTune(Strategy):
    """Behaviour cloning on the current task alone."""
