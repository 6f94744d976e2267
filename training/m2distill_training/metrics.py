"""Lifelong-learning metrics. S[i, k] is the success rate on task k after step i; only i >= k is read. K steps.

Two variants are in use and differ; both are here under their names. A value without a definition (forgetting in a run
of one step) is None.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LifelongMetrics:
    variant: str
    fwt: float  # forward transfer: how well new tasks are learned; higher is better
    nbt: float | None  # negative backward transfer: how much is lost later; lower is better
    auc: float  # area under the success curve; higher is better


def final_success_metrics(S: np.ndarray) -> LifelongMetrics:
    """Final-success variant of later papers: FWT = mean S[k,k]; NBT_k = mean over i > k of S[k,k] - S[i,k], averaged
    over the K - 1 tasks that have a later step; AUC_k = mean over i >= k of S[i,k]."""
    S = _checked(S)
    K = len(S)
    forgetting = [np.mean(S[k, k] - S[k + 1:, k]) for k in range(K - 1)]
    return LifelongMetrics("final success", fwt=float(np.mean(np.diag(S))),
                           nbt=float(np.mean(forgetting)) if forgetting else None,
                           auc=float(np.mean([S[k:, k].mean() for k in range(K)])))


def libero_metrics(curves: Sequence[Sequence[float]], S: np.ndarray) -> LifelongMetrics:
    """LIBERO's variant (its notebooks/quick_guide_algo.ipynb). `curves[k]`: success on task k at the evaluated epochs
    of step k.

    FWT_k = mean of curve k with the values after its best set to the best; NBT as above but averaged over all K, the
    last counting 0; AUC_k = (FWT_k + sum over i > k of S[i,k]) / (K - k), k from 0.
    """
    S = _checked(S)
    K = len(S)
    if len(curves) != K:
        raise ValueError(f"{len(curves)} curves for {K} steps")
    fwt = []
    for curve in curves:
        held = np.array(curve, dtype=np.float64)
        held[held.argmax():] = held.max()
        fwt.append(held.mean())
    nbt = [np.mean(S[k, k] - S[k + 1:, k]) for k in range(K - 1)] + [0.0]
    auc = [(fwt[k] + S[k + 1:, k].sum()) / (K - k) for k in range(K)]
    return LifelongMetrics("LIBERO", float(np.mean(fwt)), float(np.mean(nbt)), float(np.mean(auc)))


def wilson_interval(successes: int, episodes: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % Wilson score interval of a success rate."""
    if not 0 <= successes <= episodes or episodes == 0:
        raise ValueError(f"{successes} successes in {episodes} episodes")
    p, n = successes / episodes, episodes
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, center - half), min(1.0, center + half)


def jeffreys_draws(successes: int, episodes: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws,) values of a success rate as probable as the episodes make them, under Jeffreys' prior."""
    return rng.beta(successes + 0.5, episodes - successes + 0.5, draws)


def metric_intervals(S_draws: Sequence[np.ndarray]) -> dict[str, tuple[float, float] | None]:
    """95 % intervals of the final-success metrics by name, from success matrices drawn by `jeffreys_draws`.

    What the count of episodes leaves open, and no more: training again with another seed varies on top of it.
    """
    drawn = [final_success_metrics(S) for S in S_draws]

    def interval(name: str) -> tuple[float, float] | None:
        values = [getattr(m, name) for m in drawn]
        return None if values[0] is None else tuple(float(x) for x in np.quantile(values, (0.025, 0.975)))

    return {name: interval(name) for name in ("fwt", "nbt", "auc")}


def _checked(S: np.ndarray) -> np.ndarray:
    S = np.asarray(S, dtype=np.float64)
    if S.ndim != 2 or S.shape[0] != S.shape[1] or len(S) == 0:
        raise ValueError(f"success matrix has shape {S.shape}, expected (K, K)")
    read = S[np.tril_indices(len(S))]
    if not ((read >= 0) & (read <= 1)).all():
        raise ValueError("success matrix holds values outside 0 to 1 on or below its diagonal")
    return S
