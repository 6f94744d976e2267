import numpy as np
import pytest

from m2distill_training.evaluate import success_matrix
from m2distill_training.metrics import final_success_metrics, libero_metrics, wilson_interval

S = np.array([[0.8, 0.0, 0.0],
              [0.6, 0.9, 0.0],
              [0.4, 0.7, 1.0]])


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


def test_forgetting_is_undefined_for_one_step():
    assert final_success_metrics(np.array([[0.5]])).nbt is None


def test_values_above_the_diagonal_are_not_read():
    spoiled = S.copy()
    spoiled[np.triu_indices(3, 1)] = np.nan
    assert final_success_metrics(spoiled) == final_success_metrics(S)


@pytest.mark.parametrize("bad", [np.zeros((2, 3)), np.array([[1.2]]), np.array([[np.nan]])])
def test_malformed_matrices_are_refused(bad):
    with pytest.raises(ValueError, match="success matrix"):
        final_success_metrics(bad)


@pytest.mark.parametrize(("successes", "n", "low", "high"), [
    (4, 5, 0.3755, 0.9638), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)])
def test_wilson_interval_against_published_values(successes, n, low, high):
    """81 of 263: Newcombe, Statistics in Medicine 17 (1998), table I, method 3; the others by the formula by hand."""
    assert wilson_interval(successes, n) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_a_joint_first_step_is_one_column():
    matrix = success_matrix([{3: 1.0, 5: 0.5}, {3: 0.6, 5: 0.4, 0: 0.9}])
    np.testing.assert_allclose(matrix, [[0.75, np.nan], [0.5, 0.9]])
