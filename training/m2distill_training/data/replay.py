"""Replay memory: which demos of a finished task are kept."""

import numpy as np


def choose_demos(n_demos: int, keep: int, seed: int, task: int) -> tuple[int, ...]:
    """A uniform random choice of `keep` whole demos out of `n_demos` (all when fewer), ascending.

    A function of (seed, task) alone, so the memory of task k is the same however often a run is resumed. LIBERO keeps
    the first windows of the file instead, that is the start of a few demos: not followed.
    """
    rng = np.random.default_rng([seed, task])
    return tuple(int(i) for i in np.sort(rng.permutation(n_demos)[:keep]))
