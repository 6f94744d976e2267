"""Perturbed samples on the tokens of frozen image encoders: the price of latent_replay for more answers.

Every sample is shown a second time, perturbed (strategies/perturb.py). Its views are new, so the frozen encoders,
without a backward pass, see them once for student and teacher together. This strategy is ours.
"""

from m2distill_training.strategies.latent_recall import LatentRecall
from m2distill_training.strategies.perturb import PerturbedSamples


class LatentPerturb(PerturbedSamples, LatentRecall):
    """LatentReplay, and all samples again, perturbed."""
