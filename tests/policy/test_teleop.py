import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2distill_policy.control.teleop import Teleoperator, TeleopSettings
from m2distill_policy.errors import UserError

SETTINGS = TeleopSettings()
STILL, HELD = [0.0] * 6, [0, 0, 0, 0, 1]


def operator(axes=STILL, buttons=HELD, now_s=0.0) -> Teleoperator:
    teleoperator = Teleoperator(SETTINGS)
    teleoperator.receive(axes, buttons, now_s)
    return teleoperator


def test_without_the_deadman_nothing_moves():
    assert Teleoperator(SETTINGS).motion(0.0) is None
    assert operator([1.0] * 6, [1, 0, 0, 0, 0]).motion(0.0) is None


def test_full_deflection_is_full_speed_in_the_arm_s_axes():
    motion = operator([0.0, 1.0, 0.0, -1.0, 0.5, 0.0]).motion(0.1)  # left stick forward, right stick
    assert motion.linear_m_s.tolist() == pytest.approx([0.1, 0.0, 0.1 * (0.5 - 0.05) / 0.95])
    assert motion.angular_rad_s.tolist() == pytest.approx([0.0, 0.0, -0.5])


def test_a_stick_in_its_dead_zone_does_not_move_the_arm():
    assert not operator([0.04, -0.05, 0.0, 0.03, 0.02, 0.0]).motion(0.0).linear_m_s.any()


def test_silence_releases_the_deadman_until_the_next_message():
    teleoperator = operator()
    assert teleoperator.motion(0.3) is not None
    assert teleoperator.motion(0.31) is None
    assert teleoperator.motion(0.2) is None  # let go stays let go
    teleoperator.receive(STILL, HELD, 0.4)
    assert teleoperator.motion(0.4) is not None


def test_the_gripper_keeps_its_opening_and_follows_only_a_held_deadman():
    teleoperator = operator()
    assert teleoperator.motion(0.0).gripper_width_m is None  # nobody has commanded it, so it stays as it is
    teleoperator.receive(STILL, [1, 0, 0, 0, 1], 0.0)
    assert teleoperator.motion(0.0).gripper_width_m == 0.0
    teleoperator.receive(STILL, [0, 1, 0, 0, 0], 0.0)  # open, without the deadman
    teleoperator.receive(STILL, HELD, 0.0)
    assert teleoperator.motion(0.0).gripper_width_m == 0.0
    teleoperator.receive(STILL, [0, 1, 0, 0, 1], 0.0)
    assert teleoperator.motion(0.0).gripper_width_m == 0.08


def test_a_takeover_continues_the_last_command_of_another_node_to_the_gripper():
    teleoperator = operator()
    teleoperator.gripper_commanded(0.0)
    teleoperator.gripper_commanded(math.nan)
    assert teleoperator.motion(0.0).gripper_width_m == 0.0
    teleoperator.receive(STILL, [0, 1, 0, 0, 1], 0.0)
    assert teleoperator.motion(0.0).gripper_width_m == 0.08


def test_after_a_forced_release_the_deadman_must_be_pressed_anew():
    teleoperator = operator()
    teleoperator.release()
    teleoperator.receive(STILL, HELD, 0.0)
    assert teleoperator.motion(0.0) is None
    teleoperator.receive(STILL, [0] * 5, 0.1)
    teleoperator.receive(STILL, HELD, 0.2)
    assert teleoperator.motion(0.2) is not None


def pressed(*numbers: int) -> list[int]:
    return [int(i in numbers) for i in range(8)]


def test_each_press_of_a_button_for_the_recorder_is_one_order_without_the_deadman():
    teleoperator = operator(buttons=pressed())
    for number in (7, 5, 3, 2, 6):  # start, success, keep, discard, failure
        teleoperator.receive(STILL, pressed(number), 0.1)
        teleoperator.receive(STILL, pressed(number), 0.2)  # held
        teleoperator.receive(STILL, pressed(), 0.3)
    assert teleoperator.take_orders() == ["start", "success", "keep", "discard", "failure"]
    assert teleoperator.take_orders() == [] and teleoperator.motion(0.3) is None


def test_a_button_that_may_have_been_down_before_is_no_order():
    teleoperator = operator(buttons=pressed(7))  # in the first message
    teleoperator.receive(STILL, pressed(), 0.1)
    teleoperator.receive(STILL, pressed(3), 0.5)  # after a silence
    teleoperator.receive([], [], 0.6)  # of another joystick
    teleoperator.receive(STILL, pressed(2), 0.7)
    teleoperator.release()
    teleoperator.receive(STILL, pressed(2, 3), 0.8)
    assert teleoperator.take_orders() == []
    teleoperator.receive(STILL, pressed(2, 3, 7), 0.9)
    assert teleoperator.take_orders() == ["start"]


def test_a_joystick_without_the_buttons_for_the_recorder_moves_the_arm_all_the_same():
    teleoperator = operator(STILL, [0, 0, 0, 0, 1])
    assert teleoperator.problem == "" and teleoperator.motion(0.0) is not None
    without = Teleoperator(TeleopSettings(start_button=-1))
    for buttons in (pressed(), pressed(7)):
        without.receive(STILL, buttons, 0.0)
    assert without.take_orders() == []


@settings(deadline=None)
@given(axes=st.lists(st.floats(width=32), max_size=8), buttons=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=8))
def test_whatever_a_joystick_sends_the_arm_stays_below_its_speeds(axes, buttons):
    motion = operator(axes, buttons).motion(0.0)
    if motion is not None:
        assert np.isfinite([*motion.linear_m_s, *motion.angular_rad_s]).all()
        assert np.abs(motion.linear_m_s).max() <= SETTINGS.linear_m_s
        assert np.abs(motion.angular_rad_s).max() <= SETTINGS.angular_rad_s
        assert motion.gripper_width_m in (None, 0, SETTINGS.gripper_open_m)


@pytest.mark.parametrize(
    ("axes", "buttons", "expected"),
    [([0.0] * 3, HELD, "has 3 axes"), ([math.nan] * 6, HELD, "finite numbers"), (STILL, [0, 0], "has 2 buttons")],
)
def test_an_unsuitable_joystick_is_named_and_releases_the_deadman(axes, buttons, expected):
    teleoperator = operator()
    teleoperator.receive(axes, buttons, 0.0)
    assert expected in teleoperator.problem
    assert teleoperator.motion(0.0) is None


ONES = (1.0,) * 5


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"axes": (0.0, 1.0)}, "axes has 2 numbers, expected 6"),
        ({"axes": (0.5, *ONES)}, "axes is .*, expected whole numbers"),
        ({"axes": (64.0, *ONES)}, "axes is .*, allowed -1 to 63"),
        ({"axis_signs": (20.0, *ONES)}, "axis_signs is .*, allowed -1 to 1"),
        ({"axis_signs": (math.nan, *ONES)}, "axis_signs is .*, allowed -1 to 1"),
        ({"linear_m_s": math.nan}, "linear_m_s is nan, allowed 0.001 to 1"),
        ({"deadman_button": -1}, "deadman_button is -1, allowed 0 to 63"),
        ({"deadman_button": 5}, "success_button and deadman_button are both 5; give each a button of its own"),
    ],
)
def test_settings_out_of_range_are_rejected(setting, expected):
    with pytest.raises(UserError, match=expected):
        TeleopSettings(**setting)
