"""Gradient steps of a stage: how many, in which phases, and with which learning rate."""

import math
from collections.abc import Sequence

from m2distill_training.config import OptimConfig


class Phases:
    """Consecutive phases of gradient steps; each begins with a new optimiser, average and rate schedule.

    Args:
        shares: length of each phase, in budgets.
        budget: gradient steps in one budget.
    """

    def __init__(self, shares: Sequence[float], budget: int):
        self.lengths = [max(1, round(share * budget)) for share in shares]
        self.steps = sum(self.lengths)

    def at(self, step: int) -> tuple[int, int]:
        """Return the first gradient step and the length of the phase that gradient step `step` belongs to."""
        start = 0
        for length in self.lengths:
            if step < start + length:
                break
            start += length
        return start, length

    def curve_points(self, n: int) -> dict[int, int]:
        """Return {gradient step: number of the curve's point} for `n` equal distances; empty for 0.

        LIBERO's forward transfer is the mean success over epochs 0, 5, .. 50, which n = 10 gives. What PackNet learns
        after pruning does not count, as in LIBERO.
        """
        return {round(i * self.lengths[0] / n): i for i in range(n + 1)} if n > 0 else {}


def learning_rate(o: OptimConfig, step: int, steps: int, per_epoch: int, stage: int = 1) -> float:
    """Return the rate of gradient step `step` of a phase of `steps`.

    The rate rises linearly during the warm-up and then falls along a cosine from lr at the start to min_lr at the end.
    With a budget in epochs it changes once per epoch, as LIBERO steps torch's CosineAnnealingLR. After the first stage
    all rates are multiplied by later_lr.
    """
    factor = 1.0 if stage == 1 else o.later_lr
    if step < o.warmup_steps:
        return factor * (o.lr * (step + 1) / o.warmup_steps)
    position = (step if o.budget_unit == "steps" else step - step % per_epoch) / steps
    return factor * (o.min_lr + (o.lr - o.min_lr) * (1 + math.cos(math.pi * position)) / 2)
