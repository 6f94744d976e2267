"""The moving rate behind steps_per_s and the ETA."""

import pytest

from m2distill_training.engine.rate import WINDOW_S, MovingRate


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
