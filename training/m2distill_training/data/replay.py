"""Which demos are learned and which are kept: uniform random choices of whole demos, made by the run's seed alone.

Every task has one random order of its demos, a function of (seed, task), and every choice is a beginning of it. So what
is kept of a task is always part of what was learned of it, a demo once given up never comes back, and a resumed run
chooses alike. LIBERO keeps the first windows of the file instead, that is the start of a few demos: not followed.
"""

from collections.abc import Sequence

import numpy as np


def choose_demos(n_demos: int, keep: int, seed: int, task: int) -> tuple[int, ...]:
    """A uniform random choice of `keep` whole demos out of `n_demos` (all when fewer), ascending."""
    return tuple(sorted(random_order(n_demos, seed, task)[:keep]))


def random_order(n_demos: int, seed: int, task: int) -> list[int]:
    """The task's one random order of its demos, of which every choice is a beginning."""
    return np.random.default_rng([seed, task]).permutation(n_demos).tolist()


def choose_memory(
    orders: Sequence[Sequence[int]], learned: Sequence[int], per_task: int, total: int, seed: int
) -> list[tuple[int, ...]]:
    """The demos kept of each of the earlier tasks, given its random order of demos, the first `learned` of which were
    learned; ascending.

    At most `per_task` of every task, and `total` of all together (0: no limit). A total is shared out evenly: every
    task keeps its first demo before any keeps a second, and where it does not come out even, a random rank decides,
    which is each task's own, so further tasks only ever take places away.
    """
    quota = [min(per_task, n) for n in learned]
    if total > 0:
        ranks = [np.random.default_rng([seed, task, 1]).random() for task in range(len(quota))]
        places = sorted((place, ranks[task], task) for task, n in enumerate(quota) for place in range(n))[:total]
        quota = np.bincount([task for _, _, task in places], minlength=len(quota)).tolist()
    return [tuple(sorted(order[:keep])) for order, keep in zip(orders, quota, strict=True)]
