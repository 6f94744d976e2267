"""The target that an operator leads: it begins at the hand, stays near it, and is a policy's action at every step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2distill_policy.control.pose_target import LedTarget
from m2distill_policy.observations.poses import Pose, difference, displace
from m2distill_policy.safety.arm_presets import load_arm
from m2distill_policy.spec import HAND_DOWN

ARM = load_arm("fr3_impedance")
PERIOD_S = 0.05
LEAD_M, LEAD_RAD = 0.025, 0.125  # max_linear_m_s and max_angular_rad_s of the preset at 20 Hz
LOW, HIGH = np.array(ARM["workspace_min_m"]), np.array(ARM["workspace_max_m"])
START = Pose(np.array([0.5, 0.0, 0.4]), np.array(HAND_DOWN))
FORWARD, STILL = np.array([0.1, 0.0, 0.0]), np.zeros(3)


@pytest.fixture
def target() -> LedTarget:
    led = LedTarget(ARM, PERIOD_S)
    led.receive(START, 0.0)
    return led


def lead(target: LedTarget, linear=STILL, angular=STILL) -> Pose:
    pose = target.lead(linear, angular)
    target.sent()
    return pose


def test_it_begins_at_the_hand_and_moves_with_the_velocity_whatever_the_hand_lags(target):
    for step in range(1, 5):
        assert difference(START, lead(target, FORWARD))[:3] == pytest.approx(FORWARD * PERIOD_S * step)
    target.receive(displace(START, np.array([0.0, 0.0, -0.004]), STILL), 0.1)  # the arm sinks a little
    assert lead(target).position_m == pytest.approx([0.52, 0.0, 0.4])
    turned = difference(START, lead(target, STILL, np.array([0.0, 0.0, 0.5])))
    assert turned[3:] == pytest.approx([0.0, 0.0, 0.025])


def test_it_is_never_further_ahead_than_a_policy_s_target_however_long_the_arm_is_blocked(target):
    for _ in range(20):
        pose = lead(target, FORWARD, np.array([0.0, 0.5, 0.0]))
    ahead = difference(START, pose)
    assert np.linalg.norm(ahead[:3]) == pytest.approx(LEAD_M) and np.linalg.norm(ahead[3:]) == pytest.approx(LEAD_RAD)
    assert (target.lead_m, target.lead_rad) == pytest.approx((LEAD_M, LEAD_RAD))


def test_a_full_action_limits_the_lead_where_it_is_smaller_than_the_speed_limits():
    led = LedTarget(ARM | {"linear_gain": 0.25, "angular_gain": 0.1}, PERIOD_S)
    assert (led.lead_m, led.lead_rad) == pytest.approx((0.0125, 0.05))


def test_after_a_stop_it_begins_at_the_hand_again(target):
    lead(target, FORWARD)
    moved = displace(START, np.array([0.003, 0.0, 0.0]), STILL)
    target.receive(moved, 0.1)
    assert target.stop(0.1) is moved and not target.moving
    target.receive(displace(moved, np.array([0.0, 0.0, -0.01]), STILL), 0.2)
    assert target.stop(0.2) is moved  # latched
    assert lead(target).position_m == pytest.approx([0.503, 0.0, 0.39])


def test_without_a_fresh_pose_an_arm_at_rest_gets_no_target_and_a_moving_one_its_last_pose(target):
    lead(target, FORWARD)
    assert target.stop(9.0) is START
    assert target.stop(9.0) is None
    assert LedTarget(ARM, PERIOD_S).stop(0.0) is None


vectors = st.tuples(*[st.floats(-5, 5)] * 3).map(np.array)


@settings(deadline=None, max_examples=50)
@given(
    start=st.tuples(st.floats(-0.2, 1.0), st.floats(-0.8, 0.8), st.floats(-0.2, 1.0)).map(np.array),
    steps=st.lists(st.tuples(vectors, vectors, st.tuples(*[st.floats(-0.02, 0.02)] * 3).map(np.array)), max_size=20),
)
def test_whatever_is_commanded_it_stays_near_the_hand_in_the_workspace_and_below_the_speed_limits(start, steps):
    """The hand may begin outside the workspace, and is pushed at every step."""
    hand, target, before = Pose(start, START.quat_xyzw), LedTarget(ARM, PERIOD_S), None
    for linear, angular, push in steps:
        target.receive(hand, 0.0)
        pose = lead(target, linear, angular)
        ahead = difference(hand, pose)
        assert np.linalg.norm(ahead[:3]) <= LEAD_M + 1e-9 and np.linalg.norm(ahead[3:]) <= LEAD_RAD + 1e-9
        assert (pose.position_m >= np.minimum(LOW, hand.position_m) - 1e-9).all()
        assert (pose.position_m <= np.maximum(HIGH, hand.position_m) + 1e-9).all()
        if before is not None and np.linalg.norm(before.position_m - hand.position_m) < 1e-12:
            assert np.linalg.norm(pose.position_m - before.position_m) <= 0.5 * PERIOD_S + 1e-9
        before, hand = pose, Pose(pose.position_m + push, pose.quat_xyzw)
