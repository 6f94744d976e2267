"""The pacer keeps the rate and acts at once after an observation. Time is an argument."""

import numpy as np
import pytest

from m2distill_policy.control.pacer import Pacer

MS = 1_000_000
PERIOD = 50 * MS
POLL = 1 * MS


def act_times(arrivals_ns: list[int], until_ns: int) -> list[int]:
    """Return when a pacer acts that is called every millisecond and at each arrival of a complete set."""
    pacer, acted = Pacer(PERIOD), []
    events = sorted({*range(0, until_ns, POLL), *arrivals_ns})
    arrivals = set(arrivals_ns)
    for now_ns in events:
        if now_ns in arrivals:
            pacer.complete(now_ns)
        if pacer.due(now_ns):
            acted.append(now_ns)
    return acted


def test_it_acts_on_the_arrival_of_each_set_at_its_rate():
    rng = np.random.default_rng(0)
    arrivals = [int(7 * MS + k * PERIOD + rng.uniform(-5, 5) * MS) for k in range(1, 100)]
    assert act_times(arrivals, 100 * PERIOD) == arrivals


def test_nothing_before_the_first_complete_set():
    assert act_times([], 10 * PERIOD) == []


@pytest.mark.parametrize("hz", [10, 15, 25, 30, 47, 60, 100])
def test_inputs_at_another_rate_are_acted_on_at_its_own_rate(hz):
    seconds = 20
    arrivals = [round(k * 1e9 / hz) for k in range(1, seconds * hz)]
    acted = np.diff(act_times(arrivals, seconds * 1_000_000_000))
    assert 19.6 <= 1e9 / acted.mean() <= 20.4
    assert acted.min() > 0.7 * PERIOD and acted.max() < 1.6 * PERIOD


def test_after_a_late_set_and_a_new_phase_it_returns_to_the_arrivals():
    arrivals = [k * PERIOD for k in range(1, 20)] + [20 * PERIOD + 11 * MS] + [k * PERIOD for k in range(21, 40)]
    assert act_times(arrivals, 40 * PERIOD) == arrivals
    shifted = [k * PERIOD for k in range(1, 20)] + [k * PERIOD + 30 * MS for k in range(20, 400)]
    assert act_times(shifted, 400 * PERIOD)[-100:] == shifted[-100:]


def test_missed_steps_are_skipped_after_a_stall():
    pacer = Pacer(PERIOD)
    pacer.complete(0)
    assert pacer.due(0)
    pacer.complete(10 * PERIOD)
    assert pacer.due(10 * PERIOD)
    pacer.complete(10 * PERIOD + MS)
    assert not pacer.due(10 * PERIOD + MS)


def test_after_a_restart_the_next_set_is_acted_on_at_once():
    pacer = Pacer(PERIOD)
    pacer.complete(0)
    assert pacer.due(0)
    pacer.restart()
    assert not pacer.due(60 * MS)
    pacer.complete(61 * MS)
    assert pacer.due(61 * MS)
