"""Goals of a gripper: few, after commands that last, and none between open and closed from step to step."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from m2distill_policy.control.gripper_filter import GripperFilter

PERIOD_S = 0.05


def goals(widths_m, hysteresis_m=0.005, dwell_s=0.25) -> list[tuple[int, float]]:
    """Return the step and the opening of each goal."""
    gripper = GripperFilter(hysteresis_m, dwell_s)
    return [(step, width) for step, width in enumerate(widths_m) if gripper.is_due(width, step * PERIOD_S)]


def test_a_lasting_command_becomes_one_goal_after_the_dwell_time():
    assert goals([0.08] * 20 + [0.0] * 20) == [(5, 0.08), (25, 0.0)]


def test_a_command_that_alternates_sends_no_further_goal():
    rng = np.random.default_rng(0)
    flips = [0.08] * 10 + [float(0.08 * (rng.random() < 0.7)) for _ in range(363)]
    assert len(goals(flips, dwell_s=0.0)) > 100
    assert len(goals(flips)) <= 2


def test_small_changes_send_nothing_and_a_slow_motion_is_followed():
    assert goals([0.04] * 10 + [0.0445, 0.0355] * 50) == [(5, 0.04)]
    ramp = goals([0.0] * 6 + [0.002 * step for step in range(41)])
    assert [step for step, _ in ramp] == [5, 14, 22, 30, 38, 46]  # 3 steps of 2 mm, and the dwell time


def test_after_clear_an_equal_command_is_a_goal_again():
    gripper = GripperFilter(0.005, 0.0)
    assert gripper.is_due(0.04, 0.0) and not gripper.is_due(0.04, 1.0)
    gripper.clear()
    assert gripper.is_due(0.04, 2.0)


@given(st.lists(st.floats(0.0, 0.08), min_size=1, max_size=200))
def test_goals_are_at_least_the_dwell_time_apart_and_differ_by_the_hysteresis(widths_m):
    sent = goals(widths_m, hysteresis_m=0.01)
    for (step, width), (next_step, next_width) in itertools.pairwise(sent):
        assert next_step - step > 5 and abs(next_width - width) >= 0.01
