"""Choice of the demos that are learned and replayed: random, of whole demos, by the run's seed alone.

Every task has one random order of its demos, a function of (seed, task), and every choice is a beginning of it. What is
replayed of a task is therefore always part of what was learned, a dropped demo never returns, and a resumed run makes
the same choices. LIBERO instead keeps the first windows of the file, that is the start of a few demos.
"""

from collections.abc import Sequence

import numpy as np


def choose_demos(n_demos: int, keep: int, seed: int, task: int) -> tuple[int, ...]:
    """Return a uniform random choice of `keep` whole demos out of `n_demos` (all if fewer), ascending."""
    return tuple(sorted(random_order(n_demos, seed, task)[:keep]))


def random_order(n_demos: int, seed: int, task: int) -> list[int]:
    """Return the task's random order of its demos, of which every choice is a beginning."""
    return np.random.default_rng([seed, task]).permutation(n_demos).tolist()


def choose_memory(
    orders: Sequence[Sequence[int]], learned: Sequence[int], per_task: int, total: int, seed: int
) -> list[tuple[int, ...]]:
    """Return the demos kept of each earlier task, ascending.

    The total is shared evenly: every task keeps its first demo before any task keeps a second. If it cannot be shared
    evenly, a random rank of each task decides, so further tasks only ever remove demos.

    Args:
        orders: random order of each task's demos.
        learned: number of demos learned of each task, from the beginning of its order.
        per_task: largest number per task.
        total: largest number of all tasks together; 0: no limit.
        seed: of the run.
    """
    quota = [min(per_task, n) for n in learned]
    if total > 0:
        ranks = [np.random.default_rng([seed, task, 1]).random() for task in range(len(quota))]
        places = sorted((place, ranks[task], task) for task, n in enumerate(quota) for place in range(n))[:total]
        quota = np.bincount([task for _, _, task in places], minlength=len(quota)).tolist()
    return [tuple(sorted(order[:keep])) for order, keep in zip(orders, quota, strict=True)]
