"""Lifelong-learning metrics of a success matrix.

S[i, k] is the success rate on task k after stage i of K; only i >= k is read. Two variants are in use and differ. A
value that is not defined, such as forgetting in a run of one stage, is None.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RATE = (0.0, 1.0)
RANGES = {"fwt": RATE, "nbt": (-1.0, 1.0), "auc": RATE}


@dataclass(frozen=True)
class LifelongMetrics:
    """Three numbers of one variant."""

    variant: str
    fwt: float  # forward transfer: how well new tasks are learned; higher is better
    nbt: float | None  # negative backward transfer: how much is lost later; lower is better
    auc: float  # area under the success curve; higher is better


def final_success_metrics(S: np.ndarray) -> LifelongMetrics:
    """Return the final-success variant of later papers.

    FWT = mean S[k,k]; NBT_k = mean over i > k of S[k,k] - S[i,k], averaged over the K - 1 tasks that have a later
    stage; AUC_k = mean over i >= k of S[i,k].
    """
    S = _checked(S)
    K = len(S)
    forgetting = [np.mean(S[k, k] - S[k + 1 :, k]) for k in range(K - 1)]
    return LifelongMetrics(
        "final success",
        fwt=float(np.mean(np.diag(S))),
        nbt=float(np.mean(forgetting)) if forgetting else None,
        auc=float(np.mean([S[k:, k].mean() for k in range(K)])),
    )


def libero_metrics(curves: Sequence[Sequence[float]], S: np.ndarray) -> LifelongMetrics:
    """Return LIBERO's variant (its notebooks/quick_guide_algo.ipynb).

    `curves[k]` is the success on task k at the evaluated epochs of stage k. FWT_k = mean of curve k with the values
    after its best set to the best; NBT as above but averaged over all K, the last counting 0; AUC_k = (FWT_k + sum over
    i > k of S[i,k]) / (K - k), k from 0.
    """
    S = _checked(S)
    K = len(S)
    if len(curves) != K:
        raise ValueError(f"{len(curves)} curves for {K} stages")
    fwt = []
    for curve in curves:
        held = np.array(curve, dtype=np.float64)
        held[held.argmax() :] = held.max()
        fwt.append(held.mean())
    nbt = [np.mean(S[k, k] - S[k + 1 :, k]) for k in range(K - 1)] + [0.0]
    auc = [(fwt[k] + S[k + 1 :, k].sum()) / (K - k) for k in range(K)]
    return LifelongMetrics("LIBERO", float(np.mean(fwt)), float(np.mean(nbt)), float(np.mean(auc)))


def wilson_interval(successes: float, episodes: float, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a success rate."""
    if not 0 <= successes <= episodes or episodes == 0:
        raise ValueError(f"{successes} successes in {episodes} episodes")
    p, n = successes / episodes, episodes
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, center - half), min(1.0, center + half)


def t_interval(
    values: Sequence[float], limits: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float] | None:
    """Return the 95 % t interval of the mean of independent values, such as a metric over seeds; None for fewer than 2.

    It is cut at `limits`, the range of the values: their mean is within it, so this takes nothing from the 95 %.
    """
    n = len(values)
    if n < 2:
        return None
    from scipy.special import stdtrit  # slow to import

    mean, half = float(np.mean(values)), float(stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(n))
    return max(limits[0], mean - half), min(limits[1], mean + half)


def sum_interval(weights: Sequence[float], trials: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Return the 95 % interval of a weighted sum of independent success rates, each from (successes, episodes).

    One rate has its Wilson interval, a difference of two has Newcombe's (Statistics in Medicine 17, 1998, 873, method
    10). Rates of one sign are pooled into one rate whose number of episodes gives the weighted mean its variance.
    """
    plus, plus_low, plus_high = _pooled([(w, *t) for w, t in zip(weights, trials, strict=True) if w > 0])
    minus, minus_low, minus_high = _pooled([(-w, *t) for w, t in zip(weights, trials, strict=True) if w < 0])
    return (
        plus - minus - math.hypot(plus - plus_low, minus_high - minus),
        plus - minus + math.hypot(plus_high - plus, minus - minus_low),
    )


def _pooled(terms: list[tuple[float, int, int]]) -> tuple[float, float, float]:
    """Return the value, lower and upper limit of a sum of (weight above 0, successes, episodes)."""
    if not terms:
        return 0.0, 0.0, 0.0
    total = sum(weight for weight, _, _ in terms)
    mean = min(1.0, sum(weight * s / n for weight, s, n in terms) / total)  # rounding may exceed 1
    episodes = total**2 / sum(weight**2 / n for weight, _, n in terms)
    low, high = wilson_interval(mean * episodes, episodes)
    return total * mean, total * low, total * high


def _checked(S: np.ndarray) -> np.ndarray:
    S = np.asarray(S, dtype=np.float64)
    if S.ndim != 2 or S.shape[0] != S.shape[1] or len(S) == 0:
        raise ValueError(f"success matrix has shape {S.shape}, expected (K, K)")
    read = S[np.tril_indices(len(S))]
    if not ((read >= 0) & (read <= 1)).all():
        raise ValueError("success matrix holds values outside 0 to 1 on or below its diagonal")
    return S
