"""Statistics of paired runs: against loops, hand calculations and scipy, and their properties."""

import itertools
import math
import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multinomial

from m2distill_training.evaluation.metrics import wilson_interval
from m2distill_training.evaluation.paired import (
    METRICS,
    PairedRuns,
    holm,
    loss_bound,
    percentile_interval,
    sign_flip_p,
    standardised_difference,
)

EPISODES = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def pairs(draw) -> PairedRuns:
    """Random episodes of random rates, seeds, tasks, stages and starts."""
    rng = draw(EPISODES)
    S, T, E = (int(rng.integers(1, high)) for high in (5, 5, 8))
    learned = np.sort(rng.integers(0, T, T))
    learned = np.searchsorted(np.unique(learned), learned)
    shape = (S, T, int(learned.max()) + 1, E)
    return PairedRuns(*(rng.random(shape) < rng.random((S, T, 1, 1)) for _ in range(2)), learned)


@settings(max_examples=60, deadline=None)
@given(pairs(), st.sampled_from(list(METRICS)), st.integers(0, 99))
def test_swapping_baseline_and_candidate_negates(pair, metric, seed):
    swapped = PairedRuns(pair.candidate, pair.baseline, pair.learned)
    there, back = (x.terms(metric).bootstrap(200, np.random.default_rng(seed)) for x in (pair, swapped))
    np.testing.assert_allclose(there, -back, atol=1e-12)
    interval, negated = (percentile_interval(x, len(pair.baseline)) for x in (there, back))
    if interval is not None:
        np.testing.assert_allclose(interval, [-negated[1], -negated[0]], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(pairs(), st.sampled_from(list(METRICS)))
def test_metrics_of_a_seed_are_those_of_its_matrix(pair, metric):
    """Against loops over tasks and stages that share nothing with the product."""
    K = pair.baseline.shape[2]
    for episodes, found in zip(pair.arms, pair.terms(metric).per_seed(), strict=True):
        for s in range(len(episodes)):
            by_stage: dict[int, list[float]] = {}
            for t, k in enumerate(pair.learned):
                rates = [float(episodes[s, t, i].mean()) for i in range(K)]
                lost = [rates[k] - rates[i] for i in range(k + 1, K)]
                nothing = any(arm[s, t, k].mean() == 0 for arm in pair.arms)
                name = metric.removesuffix("_per_stage")
                if name in ("nbt", "normalised_nbt") and (not lost or (nothing and name != "nbt")):
                    continue
                value = {
                    "fwt": rates[k],
                    "auc": sum(rates[k:]) / (K - k),
                    "final": rates[-1],
                    "nbt": sum(lost) / max(1, len(lost)),
                    "normalised_nbt": sum(lost) / max(1, len(lost)) / (rates[k] or 1),
                }[name]
                by_stage.setdefault(k, []).append(value)
            every = [x for values in by_stage.values() for x in values]
            if not every:
                assert np.isnan(found[s])
            elif metric == name:
                assert found[s] == pytest.approx(np.mean(every))
            elif name != "normalised_nbt":
                assert found[s] == pytest.approx(np.mean([np.mean(values) for values in by_stage.values()]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_sign_flips_agree_with_scipy(differences):
    values = np.round(differences, 3)
    theirs = scipy.stats.permutation_test(
        (values,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip_p(values) == pytest.approx(theirs)


def test_sign_flips_of_many_seeds_are_drawn():
    values = np.random.default_rng(0).normal(0.4, 1, 20)
    exact = scipy.stats.permutation_test(
        (values,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples", n_resamples=2e5, rng=1
    ).pvalue
    assert sign_flip_p(values) == pytest.approx(exact, abs=0.005)


def test_the_bootstrap_over_seeds_agrees_with_scipy():
    """With one task and constant success over starts, only the seeds are resampled: 10 000 resamples each."""
    now = np.array([10, 7, 9, 4, 8, 6, 9, 10])
    candidate = np.arange(10) < now[:, None]
    episodes = np.broadcast_to(candidate[:, None, None, :], (8, 1, 1, 10))
    nothing = np.zeros_like(episodes)
    drawn = PairedRuns(nothing, episodes, np.array([0])).terms("final").bootstrap(10_000, np.random.default_rng(0))
    # The variance between the starts of a seed adds to that between seeds.
    within = np.mean(now / 10 * (1 - now / 10)) / 10 / 8
    assert np.var(drawn) == pytest.approx(np.var(now / 10) / 8 + within, rel=0.05)

    constant = np.broadcast_to((now > 7)[:, None, None, None], (8, 1, 1, 10))
    drawn = PairedRuns(nothing, constant, np.array([0])).terms("final").bootstrap(10_000, np.random.default_rng(0))
    theirs = scipy.stats.bootstrap(((now > 7).astype(float),), np.mean, method="percentile", n_resamples=10_000, rng=0)
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx(list(theirs.confidence_interval), abs=0.13)
    assert np.std(drawn) == pytest.approx(theirs.standard_error, rel=0.03)


def test_intervals_are_expanded_for_few_seeds():
    """Hesterberg's level for five values: Phi(-sqrt(5 / 4) * 2.776) = 0.00095."""
    drawn = np.random.default_rng(0).normal(size=100_000)
    low, high = percentile_interval(drawn, 5)
    assert (low, high) == (pytest.approx(-3.104, abs=0.1), pytest.approx(3.104, abs=0.1))
    assert percentile_interval(drawn, 1) == pytest.approx((-1.96, 1.96), abs=0.03)
    assert percentile_interval(np.full(5, np.nan), 5) is None


@pytest.mark.parametrize("spread", [0.0, 0.15])
def test_intervals_cover_the_truth_at_least_as_often_as_claimed(spread):
    """150 experiments of two equal strategies with five seeds, whose success varies with seed and task."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(150):
        rates = 0.5 + rng.normal(0, spread, (2, 5, 1, 1, 1)) + rng.normal(0, spread, (2, 5, 6, 1, 1))
        baseline, candidate = rng.random((2, 5, 6, 1, 10)) < rates
        drawn = PairedRuns(baseline, candidate, np.zeros(6, int)).terms("final").bootstrap(500, rng)
        low, high = percentile_interval(drawn, 5)
        held += low <= 0 <= high
    assert held / 150 >= 0.915  # two standard errors below 0.95


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0] and holm([]) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusted_p_values_keep_their_order_and_are_never_smaller(p):
    adjusted = holm(p)
    assert all(p[i] <= adjusted[i] <= 1 for i in range(len(p)))
    assert all(adjusted[i] <= adjusted[j] for i in range(len(p)) for j in range(len(p)) if p[i] < p[j])


def test_effect_size_by_hand():
    assert standardised_difference([0.1, 0.2, 0.3]) == pytest.approx(0.2 / 0.1)
    assert standardised_difference([0.1]) is None and standardised_difference([0.1, 0.1]) is None


def test_two_groups_of_five_runs_of_ten_tasks_take_less_than_ten_seconds():
    rng = np.random.default_rng(0)
    pair = PairedRuns(*(rng.random((5, 10, 10, 20)) < 0.7 for _ in range(2)), np.arange(10))
    begun = time.process_time()
    for metric in ("fwt", "nbt", "auc", "final", "normalised_nbt"):
        pair.terms(metric).bootstrap(10_000, np.random.default_rng(0))
    assert time.process_time() - begun < 10


def test_the_bound_of_a_loss_is_that_of_the_wilson_intervals_where_the_starts_are_independent():
    low, high = wilson_interval(15, 20, 1.644854)[0], wilson_interval(16, 20, 1.644854)[1]
    before, after = [True] * 16 + [False] * 4, [True] * 12 + [False] * 4 + [True] * 3 + [False]
    assert loss_bound(before, after) == pytest.approx(0.05 + math.hypot(0.75 - low, high - 0.8))  # 12 * 1 - 4 * 3 = 0
    assert loss_bound([True] * 20, [True] * 20) == pytest.approx(1.644854**2 / (20 + 1.644854**2))
    assert loss_bound(before, before) < loss_bound(before, after)
    for pair in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="expected the same number, at least 1"):
            loss_bound(*pair)


@pytest.mark.parametrize(("was", "largest"), [(1.0, 0.06), (0.95, 0.06), (0.8, 0.08)])
def test_the_bound_of_a_loss_has_its_confidence(was, largest):
    """A task whose success falls by the margin passes with a probability of about 5 % (an exact sum of 20 episodes)."""
    n, margin, p = 20, 0.25, was - 0.25
    cells = [was * p, was * (1 - p), (1 - was) * p, (1 - was) * (1 - p)]
    counts = np.array([x for x in itertools.product(range(n + 1), repeat=4) if sum(x) == n])
    weights = multinomial.pmf(counts, n, cells)
    passed = 0.0
    for (both, lost, gained, neither), weight in zip(counts[weights > 1e-6], weights[weights > 1e-6], strict=True):
        before = [True] * (both + lost) + [False] * (gained + neither)
        after = [True] * both + [False] * lost + [True] * gained + [False] * neither
        passed += weight * (loss_bound(before, after) <= margin)
    assert 0.01 < passed < largest
