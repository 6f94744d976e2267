"""PolicySession: reasons to hold, and commands for the newest observation. No clock, no torch."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2distill_policy.action import ActionSample, Command, Hold, command_to_action, sample_to_command
from m2distill_policy.control.session import PolicySession
from m2distill_policy.errors import UserError
from m2distill_policy.safety.arm_presets import limits_of
from m2distill_policy.spec import HAND_POSE, PANDA_FINGERS, PANDA_JOINTS, libero_spec

SPEC = libero_spec(size_px=8)
JOINTS = PANDA_JOINTS + PANDA_FINGERS
SOUP = "pick up the alphabet soup and place it in the basket"
MS = 1_000_000


class LinearPolicy:
    """Policy that returns its step count in the action, so that resets and steps are visible."""

    def __init__(self):
        self.steps, self.text, self.action = 0, None, None

    def reset(self):
        self.steps = 0

    def set_text(self, embedding):
        self.text = embedding

    def step(self, observation):
        self.steps += 1
        action = np.zeros(7, np.float32) if self.action is None else self.action
        return ActionSample(action, mode=0, log_prob=0.0, entropy=0.0)


def _session(**limits):
    policy = LinearPolicy()
    session = PolicySession(SPEC, policy, {SOUP: np.ones(768, np.float32)}, replace(limits_of("libero_sim"), **limits))
    return session, policy


def _feed(session, stamp_ns, skip=()):
    for camera in ("agentview", "wrist"):
        if camera not in skip:
            session.observe_image(camera, np.zeros((8, 8, 3), np.uint8), stamp_ns)
    return None if "joint_states" in skip else session.observe_joints(JOINTS, [0.0] * 9, stamp_ns)


def _reason(answer) -> str:
    assert isinstance(answer, Hold), answer
    return answer.reason


def test_a_complete_recent_observation_gives_a_command():
    session, policy = _session()
    session.set_instruction(SOUP)
    _feed(session, 50 * MS)
    command = session.tick(60 * MS)
    assert isinstance(command, Command) and command.stamp_ns == 50 * MS and policy.text.sum() == 768


def test_without_an_instruction_the_arm_holds():
    session, policy = _session()
    _feed(session, 0)
    assert _reason(session.tick(0)) == "no instruction" and policy.steps == 0


@pytest.mark.parametrize("missing", ["agentview", "wrist", "joint_states"])
def test_a_missing_input_is_named_and_never_estimated(missing):
    session, policy = _session()
    session.set_instruction(SOUP)
    _feed(session, 0, skip=[missing])
    assert _reason(session.tick(0)) == f"{missing}: nothing received yet" and policy.steps == 0


@pytest.mark.parametrize("late", ["agentview", "wrist", "joint_states"])
def test_an_input_that_stops_is_named(late):
    session, _ = _session()
    session.set_instruction(SOUP)
    _feed(session, 0)
    _feed(session, 251 * MS, skip=[late])
    assert _reason(session.tick(251 * MS)) == f"{late}: newest is older than 250 ms"


def test_a_stamp_from_the_future_holds():
    session, _ = _session()
    session.set_instruction(SOUP)
    _feed(session, 51 * MS)
    assert "more than 50 ms in the future" in _reason(session.tick(0))
    assert isinstance(session.tick(1 * MS), Command)


def test_inputs_that_are_too_far_apart_hold():
    session, _ = _session()
    session.set_instruction(SOUP)
    _feed(session, 0)
    _feed(session, 101 * MS, skip=["wrist"])
    assert _reason(session.tick(101 * MS)) == "wrist is more than 100 ms older than agentview"


def test_a_malformed_image_holds_until_a_valid_one_arrives():
    session, _ = _session()
    session.set_instruction(SOUP)
    _feed(session, 0)
    session.observe_image("wrist", np.zeros((5, 7, 3), np.uint8), 1)
    assert "7x5 px" in _reason(session.tick(1))
    session.observe_image("wrist", np.zeros((8, 8, 3), np.uint8), 2)
    assert isinstance(session.tick(2), Command)


def test_malformed_joints_hold():
    session, _ = _session()
    session.set_instruction(SOUP)
    _feed(session, 0)
    session.observe_joints(JOINTS, [float("nan")] + [0.0] * 8, 1)
    assert "not finite" in _reason(session.tick(1))


def _act(session, stamp_ns) -> None:
    assert _feed(session, stamp_ns) == stamp_ns
    assert isinstance(session.tick(stamp_ns), Command)


@pytest.mark.parametrize("leap_ms", [-5000, -251, 251, 1000])
def test_a_leap_of_the_stamps_clears_the_history_without_a_hold(leap_ms):
    session, policy = _session()
    session.set_instruction(SOUP)
    for ms in (6000, 6050, 6100):
        _act(session, ms * MS)
    assert policy.steps == 3
    _act(session, (6100 + leap_ms) * MS)
    assert policy.steps == 1
    _act(session, (6150 + leap_ms) * MS)
    assert policy.steps == 2


def test_an_impossible_jump_of_a_joint_holds_and_clears_the_history():
    session, policy = _session(max_joint_speed_rad_s=7.0)
    session.set_instruction(SOUP)
    _act(session, 0)
    _feed(session, 50 * MS, skip=["joint_states"])
    session.observe_joints(JOINTS, [0.44, *[0.0] * 8], 50 * MS)  # 0.1 + 7 x 0.05 = 0.45 rad are possible
    assert isinstance(session.tick(50 * MS), Command) and policy.steps == 2
    _feed(session, 100 * MS, skip=["joint_states"])
    session.observe_joints(JOINTS, [0.9, *[0.0] * 8], 100 * MS)
    assert "joint_states: panda_joint1 jumps, faster than 7 rad/s" in _reason(session.tick(100 * MS))
    for ms in range(150, 600, 50):
        _feed(session, ms * MS, skip=["joint_states"])
        session.observe_joints(JOINTS, [0.9, *[0.0] * 8], ms * MS)
        _reason(session.tick(ms * MS))
    _feed(session, 600 * MS, skip=["joint_states"])
    session.observe_joints(JOINTS, [0.9, *[0.0] * 8], 600 * MS)
    assert isinstance(session.tick(600 * MS), Command) and policy.steps == 1


def test_joints_in_parts_have_an_age_each_and_do_not_reset_the_history():
    session, policy = _session()
    session.set_instruction(SOUP)
    _feed(session, 0, skip=["joint_states"])
    assert session.observe_joints(PANDA_JOINTS, [0.1] * 7, 0) == 0
    assert "lacks ['panda_finger_joint1', 'panda_finger_joint2']" in _reason(session.tick(0))
    assert session.observe_joints(PANDA_FINGERS, [0.04, 0.04], 10 * MS) == 0  # complete; the oldest is of 0
    assert isinstance(session.tick(10 * MS), Command)
    for ms in range(20, 260, 10):
        _feed(session, ms * MS, skip=["joint_states"])
        assert session.observe_joints(PANDA_JOINTS, [0.1] * 7, ms * MS) is None
        session.observe_joints(["lift"], [1.0], ms * MS)
        outcome = session.tick(ms * MS)
        if ms <= 110:  # max_skew_s
            assert isinstance(outcome, Command) and policy.steps == ms // 10
        else:
            assert _reason(outcome) == "joint_states panda_finger_joint1 is more than 100 ms older than agentview"
    assert session.observe_joints(PANDA_FINGERS, [0.04, float("nan")], 250 * MS) == 250 * MS
    session.observe_joints(PANDA_JOINTS, [0.1] * 7, 251 * MS)
    assert "not finite at ['panda_finger_joint2']" in _reason(session.tick(251 * MS))  # the arm's do not repair it
    session.observe_joints(PANDA_FINGERS, [0.04, 0.04], 252 * MS)
    assert isinstance(session.tick(252 * MS), Command) and policy.steps == 1


def test_the_history_is_cleared_after_any_hold_and_after_an_instruction():
    session, policy = _session()
    session.set_instruction(SOUP)
    _feed(session, 0)
    session.tick(0)
    session.tick(1)
    assert policy.steps == 2
    session.tick(500 * MS)  # stale
    _feed(session, 500 * MS)
    session.tick(500 * MS)
    assert policy.steps == 1
    session.set_instruction(SOUP)
    session.tick(500 * MS)
    assert policy.steps == 1


def test_an_unknown_instruction_is_rejected_and_stops_the_arm():
    session, _ = _session()
    session.set_instruction(SOUP)
    _feed(session, 0)
    with pytest.raises(UserError, match="known: pick up the alphabet soup"):
        session.set_instruction("dance")
    assert _reason(session.tick(0)) == "no instruction"


def test_an_instruction_is_matched_regardless_of_case_and_spacing():
    session, _ = _session()
    session.set_instruction("  Pick up the  alphabet soup and place it in the basket. ")
    assert session.instruction == SOUP


def test_an_action_that_is_not_finite_is_a_fault_that_latches_until_reset():
    session, policy = _session()
    session.set_instruction(SOUP)
    policy.action = np.array([0, 0, np.nan, 0, 0, 0, 0], np.float32)
    _feed(session, 0)
    assert "not finite" in _reason(session.tick(0))
    policy.action = None
    assert "not finite" in _reason(session.tick(1))
    session.reset_fault()
    assert isinstance(session.tick(2), Command)


def test_speeds_are_shortened_to_their_limits_with_direction_kept():
    session, policy = _session(max_linear_m_s=0.5, max_angular_rad_s=1.0)
    session.set_instruction(SOUP)
    policy.action = np.array([0.6, 0.8, 0, 0, 0, 1, 1], np.float32)  # 0.6 and 0.8 m/s, 10 rad/s
    _feed(session, 0)
    command = session.tick(0)
    np.testing.assert_allclose(command.linear_m_s, [0.3, 0.4, 0], atol=1e-6)
    np.testing.assert_allclose(command.angular_rad_s, [0, 0, 1], atol=1e-6)
    assert command.gripper_width_m == 0.0


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1, width=32), min_size=7, max_size=7))
def test_command_and_action_are_inverse(values):
    action = np.array(values, np.float32)
    command = sample_to_command(SPEC, ActionSample(action, 0, 0.0, 0.0), 0)
    back = command_to_action(
        SPEC.action, SPEC.rate_hz, command.linear_m_s, command.angular_rad_s, command.gripper_width_m
    )
    np.testing.assert_allclose(back, action, atol=1e-6)


def test_one_full_step_is_five_centimetres_at_twenty_hertz():
    command = sample_to_command(SPEC, ActionSample(np.array([1, 0, 0, 0, 0, 1, -1], np.float32), 0, 0.0, 0.0), 0)
    np.testing.assert_allclose(command.linear_m_s, [1.0, 0, 0])
    np.testing.assert_allclose(command.angular_rad_s, [0, 0, 10.0])
    assert command.gripper_width_m == pytest.approx(0.08)


def _feed_pose(session, position_m, stamp_ns, quat_xyzw=(1.0, 0.0, 0.0, 0.0)):
    session.observe_pose(position_m, quat_xyzw, stamp_ns)


def test_a_workspace_requires_the_hands_pose_and_stops_the_hand_at_its_bounds():
    session, policy = _session(workspace_min_m=(0.0, -0.5, 0.1), workspace_max_m=(0.5, 0.5, 0.6))
    session.set_instruction(SOUP)
    policy.action = np.array([1, 0, -1, 0, 0, 0, -1], np.float32)  # 1 m/s forwards and down
    _feed(session, 0)
    assert _reason(session.tick(0)) == "ee_pose: nothing received yet"
    _feed_pose(session, (0.485, 0.0, 0.1), 0)
    command = session.tick(0)
    np.testing.assert_allclose(command.linear_m_s, [0.1, 0, 0], atol=1e-12)  # 15 mm to go in 0.15 s; at the floor
    assert command.limited_by == ("workspace",)
    _feed_pose(session, (0.2, 0.0, 0.0), 0)  # below the floor: up only
    policy.action = np.array([0, 0, 1, 0, 0, 0, -1], np.float32)
    np.testing.assert_allclose(session.tick(0).linear_m_s, [0, 0, 1.0])


@pytest.mark.parametrize(
    ("position", "quat"),
    [
        ((0.0, np.nan, 0.0), (0, 0, 0, 1)),
        ((0.0, 0.0, np.inf), (0, 0, 0, 1)),
        ((0.0, 0.0, 0.0), (0, 0, 0, 0)),
        ((0.0, 0.0, 0.0), (0, 0, 0, 2)),
        ((0.0, 0.0, 0.0), (np.nan, 0, 0, 1)),
    ],
)
def test_an_invalid_pose_holds(position, quat):
    session, _ = _session(workspace_min_m=(-1.0, -1.0, -1.0))
    session.set_instruction(SOUP)
    _feed(session, 0)
    _feed_pose(session, position, 0, quat)
    assert "ee_pose is not a valid pose" in _reason(session.tick(0))


def test_a_joint_near_its_limit_is_a_fault_that_returns_until_the_arm_is_moved():
    session, policy = _session(joint_margin_rad=0.1)
    session.set_instruction(SOUP)
    positions = [0.0, 0, 0, -1.5, 0, 1.5, 0, 0.04, 0.04]
    _feed(session, 0)
    session.observe_joints(JOINTS, [*positions[:5], 3.70, *positions[6:]], 0)
    assert "panda_joint6 is at 3.700 rad, closer than 0.1" in _reason(session.tick(0))
    session.reset_fault()
    assert "panda_joint6" in _reason(session.tick(0)) and policy.steps == 0
    session.observe_joints(JOINTS, positions, 0)
    session.reset_fault()
    assert isinstance(session.tick(0), Command)


def test_another_policy_takes_over_between_two_ticks_without_a_hold():
    session, old = _session()
    session.set_instruction(SOUP)
    _feed(session, 0)
    session.tick(0)
    new = LinearPolicy()
    with pytest.raises(UserError, match="does not know the current instruction"):
        session.adopt(SPEC, new, {"wave": np.zeros(768, np.float32)})
    with pytest.raises(UserError, match="its spec has rate_hz 10.0, this robot's is 20.0"):
        session.adopt(replace(SPEC, rate_hz=10.0), new, {SOUP: np.zeros(768, np.float32)})
    assert isinstance(session.tick(0), Command) and (old.steps, new.steps) == (2, 0)
    session.adopt(replace(SPEC, history=3), new, {SOUP: np.full(768, 2.0, np.float32)})
    assert isinstance(session.tick(0), Command) and (old.steps, new.steps) == (2, 1)
    assert new.text.sum() == 2 * 768 and len(session.recent) == 3


HAND = replace(SPEC, joint_names=HAND_POSE, gripper_joint_names=("finger",), gripper_joint_signs=(1.0,))


def _hand_session(spec=HAND, **limits):
    policy = LinearPolicy()
    policy.seen = []
    policy.step = lambda observation: (policy.seen.append(observation), LinearPolicy.step(policy, observation))[1]
    return PolicySession(spec, policy, {SOUP: np.ones(768, np.float32)}, replace(limits_of("libero_sim"), **limits))


def test_a_policy_that_observes_the_hand_gets_its_pose_and_the_gripper_and_holds_without_either():
    session = _hand_session()
    session.set_instruction(SOUP)
    assert [stream.name for stream in session.streams] == ["agentview", "wrist", "ee_pose", "joint_states"]
    _feed(session, 5, skip=("joint_states",))
    assert _reason(session.tick(5)) == "ee_pose: nothing received yet"
    session.observe_pose((0.1, 0.2, 0.3), (-1.0, 0.0, 0.0, 0.0), 5)
    assert _reason(session.tick(5)) == "joint_states: nothing received yet"
    assert session.observe_joints(("wheel", "finger"), (1.0, 0.03), 5) == 5
    assert isinstance(session.tick(5), Command)
    (observation,) = session._policy.seen
    np.testing.assert_array_equal(observation.joint, np.float32([0.1, 0.2, 0.3, np.pi, 0, 0]))
    np.testing.assert_array_equal(observation.gripper, np.float32([0.03]))


def test_a_hand_without_gripper_joints_needs_no_joint_states():
    session = _hand_session(replace(HAND, gripper_joint_names=(), gripper_joint_signs=()))
    session.set_instruction(SOUP)
    assert session.observe_joints(("wheel",), (1.0,), 5) is None
    _feed(session, 5, skip=("joint_states",))
    session.observe_pose((0.1, 0.2, 0.3), (1.0, 0.0, 0.0, 0.0), 5)
    assert isinstance(session.tick(5), Command)


def test_limits_of_joints_hold_also_for_a_policy_that_does_not_observe_them():
    with pytest.raises(UserError, match="so the joints whose limits are checked are unknown; set joint_names"):
        _hand_session(joint_margin_rad=0.1)
    named = {"joint_names": ("elbow_joint",), "joint_margin_rad": 0.1}
    session = _hand_session(**named)
    session.set_instruction(SOUP)
    _feed(session, 5, skip=("joint_states",))
    session.observe_pose((0.1, 0.2, 0.3), (1.0, 0.0, 0.0, 0.0), 5)
    session.observe_joints(("finger",), (0.03,), 5)
    assert "lacks ['elbow_joint']" in _reason(session.tick(5))
    session.observe_joints(("elbow_joint",), (3.1,), 5)
    assert "elbow_joint is at 3.100 rad" in _reason(session.tick(5))
