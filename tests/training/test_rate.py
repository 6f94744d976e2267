"""The moving rates behind steps_per_s, the ETA and the time left of a study."""

import pytest

from m2distill_training.engine.rate import WINDOW_S, MovingRate
from m2distill_training.experiments import study_status
from m2distill_training.experiments.study_status import MovingCosts


def test_a_slow_start_is_forgotten():
    rate = MovingRate(started=0.0)
    assert rate.after(100.0) == pytest.approx(0.01)  # the first step took 100 s
    rates = [rate.after(100.0 + 0.5 * i) for i in range(1, 200)]
    assert rates[-1] == pytest.approx(2.0)  # the mean since the start would be 1.005
    assert rates[int(2 * WINDOW_S)] == pytest.approx(2.0)


def test_a_slowdown_shows_within_the_window():
    rate = MovingRate(started=0.0)
    for i in range(1, 101):
        rate.after(0.1 * i)
    for i in range(1, 41):
        slow = rate.after(10.0 + i)
    assert slow == pytest.approx(1.0)


def test_steps_longer_than_the_window_have_the_rate_of_the_last():
    rate = MovingRate(started=0.0)
    rate.after(1.0)
    assert rate.after(1.0 + 4 * WINDOW_S) == pytest.approx(1 / (4 * WINDOW_S))


def test_the_costs_of_a_study_forget_a_slow_start_and_keep_what_is_known():
    costs, window = MovingCosts({"evaluate": 7.0}), study_status.WINDOW_S
    costs.after(0.0, {"train": 0.0}, {"train": 0.0})
    assert costs.after(100.0, {"train": 100.0}, {"train": 10.0}) == {"evaluate": 7.0, "train": 10.0}
    for i in range(1, 101):
        seconds, units = 100.0 + i * window / 10, 10.0 + i * window / 20
        found = costs.after(seconds, {"train": seconds}, {"train": units})
    assert found["train"] == pytest.approx(2.0)
    for i in range(1, 101):  # nothing is done while the machine is busy with another kind
        found = costs.after(seconds + i * window, {"train": seconds}, {"train": units})
    assert found["train"] == pytest.approx(2.0)
