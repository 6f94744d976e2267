"""Choice of the demos that are learned and replayed, and of the windows of a replayed batch.

Every task has one random order of its demos, a function of (seed, task), and what is learned is a beginning of it. What
is replayed is a beginning of the replay order of the learned demos: the random order again, or coverage_order. A
dropped demo never returns, and a resumed run makes the same choices. LIBERO instead keeps the first windows of the
file, that is the start of a few demos.
"""

from collections.abc import Sequence

import numpy as np


def choose_demos(n_demos: int, keep: int, seed: int, task: int) -> tuple[int, ...]:
    """Return a uniform random choice of `keep` whole demos out of `n_demos` (all if fewer), ascending."""
    return tuple(sorted(random_order(n_demos, seed, task)[:keep]))


def random_order(n_demos: int, seed: int, task: int) -> list[int]:
    """Return the task's random order of its demos, of which every choice is a beginning."""
    return np.random.default_rng([seed, task]).permutation(n_demos).tolist()


def coverage_order(joints: Sequence[np.ndarray], points: int = 16) -> list[int]:
    """Return the demos in an order whose every beginning covers the joint trajectories of all.

    The first demo is the one nearest to the mean. Each further one is the farthest from those before it, measured to
    the nearest of them (Gonzalez' farthest-point order). It depends on the demos alone. A distance is Euclidean, of the
    joint positions at `points` equal parts of a demo, each divided by its deviation over the demos.

    Args:
        joints: (frames, J) of every demo, rad.
        points: moments of a demo that are compared.
    """
    rows = [x[np.linspace(0, len(x) - 1, points).round().astype(int)].astype(np.float64).ravel() for x in joints]
    features = np.stack(rows)
    features = (features - features.mean(0)) / np.maximum(features.std(0), 1e-9)
    order = [int(np.square(features).sum(1).argmin())]
    nearest = np.full(len(features), np.inf)
    while len(order) < len(features):
        nearest = np.minimum(nearest, np.square(features - features[order[-1]]).sum(1))
        nearest[order] = -1
        order.append(int(nearest.argmax()))
    return order


def grip_phases(grip: np.ndarray) -> np.ndarray:
    """Return the phase (frames,) of every frame of a demo: how often the gripper's command changed its sign so far."""
    closes = grip > 0
    return np.concatenate([[0], np.cumsum(closes[1:] != closes[:-1])])


def balanced_ids(
    groups: Sequence[Sequence[np.ndarray]], batch_size: int, step: int, seed: tuple[int, ...]
) -> np.ndarray:
    """Return the ids (batch_size,) int64 of batch `step`: tasks, and phases of a task, are equally frequent.

    Place j of all batches belongs to task j mod n, and of the places of a task, each phase has one after the other. A
    phase is an endless chain of shuffles of its windows, each seeded by (seed, task, phase, its number).

    Args:
        groups: for every task, the window ids of each of its phases.
        batch_size: number of ids.
        step: gradient step.
        seed: of the shuffles.
    """
    shuffles: dict[tuple[int, ...], np.ndarray] = {}
    ids = np.empty(batch_size, np.int64)
    for row in range(batch_size):
        place, task = divmod(step * batch_size + row, len(groups))
        turn, phase = divmod(place, len(groups[task]))
        windows = groups[task][phase]
        key = (task, phase, turn // len(windows))
        if key not in shuffles:
            shuffles[key] = np.random.default_rng([*seed, *key]).permutation(windows)
        ids[row] = shuffles[key][turn % len(windows)]
    return ids


def choose_memory(
    orders: Sequence[Sequence[int]], learned: Sequence[int], per_task: int, total: int, seed: int
) -> list[tuple[int, ...]]:
    """Return the demos kept of each earlier task, ascending.

    The total is shared evenly: every task keeps its first demo before any task keeps a second. If it cannot be shared
    evenly, a random rank of each task decides, so further tasks only ever remove demos.

    Args:
        orders: replay order of each task's demos, at least of the learned ones.
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
