"""Experience replay (LIBERO's ER): behaviour cloning on current and replayed samples, one batch and one mean."""

from m2distill_training.strategies.base import Strategy


class ExperienceReplay(Strategy):
    """Experience replay."""

    uses_replay = True
