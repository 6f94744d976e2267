import numpy as np
import pytest

from m2distill_sim.suites import DEMO_STATES, HELD_OUT
from m2distill_training.evaluation.evaluate import success_matrix
from m2distill_training.evaluation.metrics import (
    final_success_metrics,
    libero_metrics,
    sum_interval,
    t_interval,
    wilson_interval,
)

S = np.array([[0.8, 0.0, 0.0], [0.6, 0.9, 0.0], [0.4, 0.7, 1.0]])


def test_final_success_variant_by_hand():
    m = final_success_metrics(S)
    assert m.fwt == pytest.approx((0.8 + 0.9 + 1.0) / 3)
    assert m.nbt == pytest.approx(((0.2 + 0.4) / 2 + 0.2) / 2)
    assert m.auc == pytest.approx(((0.8 + 0.6 + 0.4) / 3 + (0.9 + 0.7) / 2 + 1.0) / 3)


def test_libero_variant_by_hand():
    curves = [[0.2, 0.8, 0.4], [0.1, 0.3, 0.9], [1.0, 0.0, 0.0]]
    m = libero_metrics(curves, S)
    fwt = [(0.2 + 0.8 + 0.8) / 3, (0.1 + 0.3 + 0.9) / 3, 1.0]
    assert m.fwt == pytest.approx(sum(fwt) / 3)
    assert m.nbt == pytest.approx(((0.2 + 0.4) / 2 + 0.2 + 0) / 3)
    assert m.auc == pytest.approx(((fwt[0] + 0.6 + 0.4) / 3 + (fwt[1] + 0.7) / 2 + fwt[2]) / 3)


def libero_s_formula(curves: list[list[float]], S: list[list[float]]) -> tuple[float, float, float]:
    """FWT, NBT and AUC written out as LIBERO defines them, tasks numbered 1 to K, without numpy."""
    K = len(S)
    s = {(i, k): S[i - 1][k - 1] for i in range(1, K + 1) for k in range(1, i + 1)}
    fwt, nbt, auc = {}, {}, {}
    for k in range(1, K + 1):
        curve = curves[k - 1]
        best = curve.index(max(curve))
        fwt[k] = sum(curve[e] if e < best else curve[best] for e in range(len(curve))) / len(curve)
        later = range(k + 1, K + 1)
        nbt[k] = sum(s[k, k] - s[i, k] for i in later) / (K - k) if k < K else 0.0
        auc[k] = (fwt[k] + sum(s[i, k] for i in later)) / (K - k + 1)
    return tuple(sum(values.values()) / K for values in (fwt, nbt, auc))


def final_success_formula(S: list[list[float]]) -> tuple[float, float, float]:
    K = len(S)
    nbt = [sum(S[k][k] - S[i][k] for i in range(k + 1, K)) / (K - 1 - k) for k in range(K - 1)]
    auc = [sum(S[i][k] for i in range(k, K)) / (K - k) for k in range(K)]
    return sum(S[k][k] for k in range(K)) / K, sum(nbt) / (K - 1), sum(auc) / K


@pytest.mark.parametrize("seed", range(40))
def test_both_variants_equal_their_formulas_on_random_matrices(seed):
    rng = np.random.default_rng(seed)
    K, episodes = int(rng.integers(2, 12)), 20
    S = rng.integers(0, episodes + 1, (K, K)) / episodes
    curves = (rng.integers(0, episodes + 1, (K, 11)) / episodes).tolist()  # ties for the best are common
    libero, final = libero_metrics(curves, S), final_success_metrics(S)
    assert (libero.fwt, libero.nbt, libero.auc) == pytest.approx(libero_s_formula(curves, S.tolist()), abs=1e-12)
    assert (final.fwt, final.nbt, final.auc) == pytest.approx(final_success_formula(S.tolist()), abs=1e-12)


def test_forgetting_is_undefined_for_one_step():
    assert final_success_metrics(np.array([[0.5]])).nbt is None


def test_values_above_the_diagonal_are_not_read():
    spoiled = S.copy()
    spoiled[np.triu_indices(3, 1)] = np.nan
    assert final_success_metrics(spoiled) == final_success_metrics(S)


@pytest.mark.parametrize("bad", [np.zeros((2, 3)), np.array([[1.2]]), np.array([[np.nan]])])
def test_malformed_matrices_are_rejected(bad):
    with pytest.raises(ValueError, match="success matrix"):
        final_success_metrics(bad)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(4, 5, 0.3755, 0.9638), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval_against_published_values(successes, n, low, high):
    """81 of 263: Newcombe, Statistics in Medicine 17 (1998), table I, method 3; the others by the formula by hand."""
    assert wilson_interval(successes, n) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_a_joint_first_step_is_one_column():
    matrix = success_matrix([{3: 1.0, 5: 0.5}, {3: 0.6, 5: 0.4, 0: 0.9}])
    np.testing.assert_allclose(matrix, [[0.75, np.nan], [0.5, 0.9]])


def test_states_of_demonstrations_and_of_reported_success_are_disjoint_and_all():
    """Nothing is chosen by success in training, so these two are all the uses that initial states have."""
    assert set(DEMO_STATES).isdisjoint(HELD_OUT)
    assert sorted((*DEMO_STATES, *HELD_OUT)) == list(range(50))


def test_interval_of_a_difference_against_a_published_value():
    """56 of 70 less 48 of 80: Newcombe, Statistics in Medicine 17 (1998) 873, table II, method 10."""
    assert sum_interval([1, -1], [(56, 70), (48, 80)]) == (
        pytest.approx(0.0524, abs=1e-4),
        pytest.approx(0.3339, abs=1e-4),
    )


def test_interval_of_one_rate_is_wilson_s():
    assert sum_interval([1], [(4, 5)]) == pytest.approx(wilson_interval(4, 5))


def test_equal_rates_of_one_sign_count_as_one():
    assert sum_interval([0.5, 0.5], [(8, 10), (10, 10)]) == pytest.approx(wilson_interval(18, 20))


def test_the_t_interval_is_cut_at_the_range_of_the_values():
    low, high = t_interval([0.6, 0.7, 0.8])
    assert (low, high) == (pytest.approx(0.7 - 4.3027 * 0.1 / 3**0.5, abs=1e-4), pytest.approx(0.9484, abs=1e-4))
    assert t_interval([0.6, 0.7, 0.8], (0.5, 0.9)) == (0.5, 0.9)


@pytest.mark.parametrize("spread", [0.0, 0.3])
@pytest.mark.parametrize("rate", [0.5, 0.67, 0.97])
def test_intervals_cover_the_truth_at_least_as_often_as_claimed(rate, spread):
    """400 experiments each of a mean over 10 tasks and of a loss between 10 and 10, with 10 episodes a task; a pooled
    interval is too wide, never too narrow, when the tasks' rates differ."""
    rng = np.random.default_rng(0)
    rates = np.clip(np.linspace(rate - spread, rate + spread, 10), 0, 1)
    kept = 0.6 * rates
    mean_held, loss_held = 0, 0
    for before, after in zip(rng.binomial(10, rates, (400, 10)), rng.binomial(10, kept, (400, 10)), strict=True):
        trials = [(int(s), 10) for s in (*before, *after)]
        low, high = sum_interval([0.1] * 10, trials[:10])
        mean_held += low <= rates.mean() <= high
        low, high = sum_interval([0.1] * 10 + [-0.1] * 10, trials)
        loss_held += low <= (rates - kept).mean() <= high
    assert mean_held / 400 >= 0.925  # two standard errors below 0.95
    assert loss_held / 400 >= 0.925
