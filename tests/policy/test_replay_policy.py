"""A recorded motion in a session: it is followed step by step while the arm is near it, and is a fault otherwise."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from m2distill_policy.action import Command, Hold
from m2distill_policy.control.replay_policy import ENDED, ReplayPolicy
from m2distill_policy.control.session import PolicySession
from m2distill_policy.errors import DataError, UserError
from m2distill_policy.recording.motion import RecordedMotion, load_motion, save_motion
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS, libero_spec

STEPS, PERIOD_NS = 5, 50_000_000
HOME = np.array([0.0, -0.5, 0.1, -2.0, 0.2, 1.5, 0.8], np.float32)


def motion(**changes) -> RecordedMotion:
    """A joint that moves by 0.1 rad per step, and a different action at each."""
    joint = np.tile(HOME, (STEPS, 1))
    joint[:, 0] = 0.1 * np.arange(STEPS)
    action = np.zeros((STEPS, 7), np.float32)
    action[:, 0] = 0.1 * np.arange(1, STEPS + 1)
    return RecordedMotion(**{"spec": libero_spec(8), "text": "replay a", "action": action, "joint": joint, **changes})


class Arm:
    """A session that follows a motion, and an arm whose first joint is wherever the test puts it."""

    def __init__(self, **changes):
        recorded = motion(**changes)
        self.policy = ReplayPolicy(recorded)
        self.session = PolicySession(recorded.spec, self.policy, {recorded.text: np.zeros(1, np.float32)})
        self.session.set_instruction(recorded.text)
        self.now_ns = 0

    def at(self, angle_rad: float) -> Command | Hold:
        self.now_ns += PERIOD_NS
        positions = np.concatenate([[angle_rad], HOME[1:], [0.04, 0.04]])
        for camera in ("agentview", "wrist"):
            self.session.observe_image(camera, np.zeros((8, 8, 3), np.uint8), self.now_ns)
        self.session.observe_joints((*PANDA_JOINTS, *PANDA_FINGERS), positions, self.now_ns)
        return self.session.tick(self.now_ns)

    def speeds(self, *angles_rad: float) -> list[float]:
        """Commanded speeds along x, in units of a full action."""
        return [round(float(self.at(angle).linear_m_s[0]), 6) for angle in angles_rad]


def test_every_action_is_sent_once_and_then_the_arm_holds():
    arm = Arm()
    assert arm.speeds(0.0, 0.13, 0.2, 0.3, 0.4) == [0.1, 0.2, 0.3, 0.4, 0.5]
    end = arm.at(0.5)
    assert end == Hold(f"{ENDED} after 5 steps; the joints stayed within 0.030 rad of it")
    assert arm.at(0.5) == end and not arm.session.fault


def test_a_joint_that_is_too_far_away_is_a_fault_that_names_it():
    arm = Arm(tolerance_rad=0.15)
    assert arm.speeds(0.0, 0.1) == [0.1, 0.2]
    assert isinstance(arm.at(0.36), Hold)
    assert arm.session.fault.startswith("panda_joint1 is 0.160 rad from the recording at step 3 of 5, allowed is 0.15")
    assert isinstance(Arm().at(0.3), Hold)  # not at the beginning


def test_after_a_hold_and_another_order_the_motion_continues_and_does_not_begin_again():
    arm = Arm(tolerance_rad=0.15)
    assert arm.speeds(0.0, 0.1) == [0.1, 0.2]
    assert isinstance(arm.session.tick(arm.now_ns + 10**9), Hold)  # its inputs are old
    assert arm.speeds(0.2) == [0.3]
    arm.session.stop()
    arm.session.set_instruction("replay a")
    assert arm.speeds(0.3) == [0.4]
    assert isinstance(arm.at(0.0), Hold) and "step 5 of 5" in arm.session.fault  # the arm was moved to the beginning
    arm.session.reset_fault()
    arm.policy.reseed()
    assert arm.speeds(0.0, 0.1) == [0.1, 0.2]


def test_a_motion_is_read_as_it_was_written_and_nothing_else_is_one(tmp_path):
    path = tmp_path / "motion"
    save_motion(path, motion())
    read = load_motion(path)
    assert (read.spec, read.text, read.tolerance_rad, len(read.id)) == (libero_spec(8), "replay a", 0.2, 64)
    np.testing.assert_array_equal(read.action, motion().action)
    np.testing.assert_array_equal(read.joint, motion().joint)
    content = path.read_bytes()
    for damaged in (b"", content[:20], content[:-9], content.replace(b"tolerance_rad", b"tolerance_rod")):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="neither the folder of a checkpoint nor a recorded motion"):
            load_motion(path)
    save_file({"action": np.zeros((1, 7), np.float32)}, path)
    with pytest.raises(DataError, match=r"it holds \['action'\], expected \['action', 'joint'\]"):
        load_motion(path)


@pytest.mark.parametrize(
    ("changes", "wording"),
    [
        ({"action": np.zeros((5, 6))}, r"actions \(5, 6\)"),
        ({"joint": np.zeros((4, 7))}, r"joints \(4, 7\)"),
        ({"action": np.zeros((0, 7)), "joint": np.zeros((0, 7))}, "T at least 1"),
        ({"joint": np.full((5, 7), np.nan)}, "not finite"),
        ({"tolerance_rad": float("nan")}, "allowed above 0 up to 1"),
        ({"tolerance_rad": 1.5}, "tolerance is 1.5 rad"),
        ({"text": " "}, "no text"),
    ],
)
def test_an_impossible_motion_is_rejected(changes, wording):
    with pytest.raises(UserError, match=wording):
        motion(**changes)
