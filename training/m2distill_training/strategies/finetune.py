"""Plain fine-tuning (LIBERO's Sequential): what forgets. The control beside which the others are shown."""

from m2distill_training.strategies.base import Strategy


class FineTune(Strategy):
    pass
