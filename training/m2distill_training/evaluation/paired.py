"""Statistics of paired runs: lifelong metrics per task, hierarchical bootstrap, sign-flip test and Holm's correction.

A run's episodes are an array (T, K, E) of 0 and 1: task, stage and start; a task has no value before the stage that
learns it. Two runs of one seed are paired by task and by start: both executed the same episodes.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from m2distill_training.evaluation.metrics import wilson_interval

LEAST_SEEDS = 6  # 2 / 2**5 is above 0.05: with five seeds no sign-flip test reaches it
EXACT_SEEDS = 14  # up to this number all sign patterns are enumerated
RANDOM_FLIPS = 100_000
CHUNK = 4_000_000  # episodes drawn at a time
Z_ONE_SIDED = 1.644854  # 95 % quantile of the normal distribution


@dataclass(frozen=True)
class MetricInfo:
    """Definition of one metric."""

    title: str
    higher_is_better: bool
    per_stage: bool = False  # every stage has the same weight, else every task
    needs_later_stage: bool = False  # undefined for a task of the last stage


METRICS = {
    "fwt": MetricInfo("FWT", True),
    "nbt": MetricInfo("NBT", False, needs_later_stage=True),
    "auc": MetricInfo("AUC", True),
    "final": MetricInfo("final success", True),
    "normalised_nbt": MetricInfo("normalised NBT", False, needs_later_stage=True),
}
METRICS |= {
    f"{name}_per_stage": MetricInfo(
        f"{info.title} per stage", info.higher_is_better, per_stage=True, needs_later_stage=info.needs_later_stage
    )
    for name, info in METRICS.items()
}


@dataclass(frozen=True)
class PairedRuns:
    """Runs of two groups with the same seeds, tasks and starts.

    `baseline` and `candidate` have the shape (S, T, K, E): seed, task, stage, start. `learned[t]` is the stage, from 0,
    that learns task t.
    """

    baseline: np.ndarray
    candidate: np.ndarray
    learned: np.ndarray

    def terms(self, metric: str) -> "PairedTerms":
        """Return what the metric needs of every episode."""
        info, last = METRICS[metric], self.baseline.shape[2] - 1
        tasks = np.flatnonzero(self.learned < last) if info.needs_later_stage else np.arange(len(self.learned))
        per_stage = 1 / np.bincount(self.learned, minlength=last + 1)[self.learned[tasks]]
        pair = [episode_terms(x, self.learned, metric.removesuffix("_per_stage")) for x in self.arms]
        return PairedTerms(
            tuple(value[:, tasks] for value, _ in pair),
            None if pair[0][1] is None else tuple(first[:, tasks] for _, first in pair if first is not None),
            per_stage if info.per_stage else np.ones(len(tasks)),
        )

    @property
    def arms(self) -> tuple[np.ndarray, np.ndarray]:
        return self.baseline, self.candidate


def episode_terms(episodes: np.ndarray, learned: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return each start's contribution to a metric (S, T, E); the metric of a task is its mean over the starts.

    For "normalised_nbt" the second array is the success when the task was learned: the metric is the ratio of the two
    means. It is NaN for a task without a later stage.
    """
    K, terms = episodes.shape[2], []
    for task, k in enumerate(learned):
        of_task = episodes[:, task].astype(np.float64)
        first, later = of_task[:, k], of_task[:, k + 1 :]
        if metric == "fwt":
            terms.append(first)
        elif metric == "auc":
            terms.append(of_task[:, k:].mean(axis=1))
        elif metric == "final":
            terms.append(of_task[:, K - 1])
        else:
            terms.append(first - later.mean(axis=1) if k + 1 < K else np.full_like(first, np.nan))
    first = np.stack([episodes[:, task, k] for task, k in enumerate(learned)], axis=1).astype(np.float64)
    return np.stack(terms, axis=1), first if metric == "normalised_nbt" else None


@dataclass(frozen=True)
class PairedTerms:
    """Terms of one metric, baseline and candidate: arrays (S, T, E), and the weight of each task (T,)."""

    value: tuple[np.ndarray, ...]
    denominator: tuple[np.ndarray, ...] | None
    weight: np.ndarray

    def left_out(self) -> int:
        """Return the pairs of seed and task that are left out: a run has no success to lose."""
        if self.denominator is None:
            return 0
        return int(np.logical_or(*(x.mean(axis=-1) == 0 for x in self.denominator)).sum())

    def per_seed(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the metric of baseline and candidate for every seed (S,); NaN where it is undefined."""
        S, T, E = self.value[0].shape
        tasks = np.tile(np.arange(T), (S, 1))
        starts = np.broadcast_to(np.arange(E), (S, T, E))
        return self._seed_means(np.arange(S), tasks, starts)

    def bootstrap(self, resamples: int, rng: np.random.Generator) -> np.ndarray:
        """Return differences, candidate minus baseline, of resampled experiments; NaN where one is undefined.

        Each draws seeds with replacement, for every drawn seed tasks, and for every drawn task starts. What was drawn
        is taken from both runs of the pair.
        """
        S, T, E = self.value[0].shape
        if T == 0:
            return np.full(resamples, np.nan)
        drawn = []
        size = max(1, CHUNK // (S * T * E))
        for begin in range(0, resamples, size):
            B = min(size, resamples - begin)
            seeds = rng.integers(S, size=(B, S), dtype=np.int32)
            tasks = rng.integers(T, size=(B, S, T), dtype=np.int32)
            starts = rng.integers(E, size=(B, S, T, E), dtype=np.int32)
            baseline, candidate = self._seed_means(seeds, tasks, starts)
            drawn.append(_mean(candidate - baseline))
        return np.concatenate(drawn)

    def _seed_means(self, seeds: np.ndarray, tasks: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return both metrics (..., S) of chosen seeds (..., S), tasks (..., S, T) and starts (..., S, T, E)."""
        _, T, E = self.value[0].shape
        index = ((seeds[..., None] * T + tasks) * E)[..., None] + starts

        def rates(terms: np.ndarray) -> np.ndarray:
            return terms.ravel()[index].mean(axis=-1)

        values = [rates(x) for x in self.value]
        weight = self.weight[tasks]
        if self.denominator is not None:
            first = [rates(x) for x in self.denominator]
            defined = (first[0] > 0) & (first[1] > 0)
            values = [np.where(defined, x / np.where(defined, y, 1), 0) for x, y in zip(values, first, strict=True)]
            weight = weight * defined
        total = weight.sum(axis=-1)
        baseline, candidate = (
            np.where(total > 0, (weight * x).sum(axis=-1) / np.where(total > 0, total, 1), np.nan) for x in values
        )
        return baseline, candidate


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of the values that are defined; NaN if none is."""
    defined = np.isfinite(values)
    count = defined.sum(axis=-1)
    return np.where(count > 0, np.where(defined, values, 0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def percentile_interval(drawn: np.ndarray, seeds: int) -> tuple[float, float] | None:
    """Return the 95 % interval of resampled values; None if all are undefined.

    The percentiles are expanded for the number of seeds n, to Phi(-sqrt(n / (n - 1)) t(0.975, n - 1)) instead of 0.025
    (Hesterberg, The American Statistician 69, 2015, 371): a bootstrap of few values is too narrow. With one seed the
    percentiles are 0.025 and 0.975, and the interval covers tasks and episodes alone.
    """
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) == 0:
        return None
    level = 0.025 if seeds < 2 else float(ndtr(-math.sqrt(seeds / (seeds - 1)) * stdtrit(seeds - 1, 0.975)))
    low, high = np.quantile(drawn, [level, 1 - level])
    return float(low), float(high)


def sign_flip_p(differences: Sequence[float], seed: int = 0) -> float:
    """Return the two-sided p-value of the mean of paired differences.

    It is the share of sign patterns with a mean at least as far from 0. All patterns are enumerated up to EXACT_SEEDS
    differences; above, RANDOM_FLIPS are drawn.
    """
    values = np.asarray(differences, dtype=np.float64)
    n, least = len(values), abs(values.sum()) - 1e-9
    if n <= EXACT_SEEDS:
        signs = np.array(list(itertools.product((1, -1), repeat=n)))
        return float(np.mean(np.abs(signs @ values) >= least))
    signs = np.random.default_rng(seed).choice((1, -1), (RANDOM_FLIPS, n))
    return float((1 + np.sum(np.abs(signs @ values) >= least)) / (1 + RANDOM_FLIPS))


def standardised_difference(differences: Sequence[float]) -> float | None:
    """Return mean / standard deviation of paired differences; None for fewer than two, or equal ones."""
    if len(differences) < 2:
        return None
    deviation = float(np.std(differences, ddof=1))
    return float(np.mean(differences)) / deviation if deviation > 1e-12 else None


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979, 65)."""
    m, adjusted, largest = len(p_values), [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def loss_bound(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Return the upper bound of a loss in success rate, at 95 % one-sided confidence, from episodes of the same starts.

    It is the limit of Newcombe's score interval for a paired difference of proportions (Statistics in Medicine 17,
    1998, 2635, method 10), from Wilson intervals of both rates and their correlation. Unlike resampled episodes it does
    not collapse to 0 where all episodes succeed: 10 and 10 of 10 leave 0.21, 20 and 20 of 20 leave 0.12.

    Args:
        before: success of every start, of the checkpoint to keep up with.
        after: success of the same starts.

    Raises:
        ValueError: there are no episodes, or the numbers differ.
    """
    x, y = np.asarray(before, bool), np.asarray(after, bool)
    n = len(x)
    if n == 0 or len(y) != n:
        raise ValueError(f"{n} and {len(y)} episodes, expected the same number, at least 1")
    low, high = wilson_interval(int(y.sum()), n, Z_ONE_SIDED)[0], wilson_interval(int(x.sum()), n, Z_ONE_SIDED)[1]
    loss, fall, rise = x.mean() - y.mean(), y.mean() - low, high - x.mean()
    both, neither, lost, gained = int((x & y).sum()), int((~x & ~y).sum()), int((x & ~y).sum()), int((~x & y).sum())
    scale = math.sqrt((both + lost) * (gained + neither) * (both + gained) * (lost + neither))
    excess = float(both * neither - lost * gained)
    if excess > 0:  # continuity correction, as in the source
        excess = max(0.0, excess - n / 2)
    correlation = excess / scale if scale else 0.0
    return float(loss + math.sqrt(fall**2 - 2 * correlation * fall * rise + rise**2))
