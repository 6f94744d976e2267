"""Safety limits: the command guard by hand-computed numbers and random inputs, and bounds of the presets."""

import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2distill_policy.action import ActionSample, Command, sample_to_command
from m2distill_policy.errors import UserError
from m2distill_policy.safety.arm_presets import arm_names, limits_of
from m2distill_policy.safety.joint_limits import joint_ranges
from m2distill_policy.safety.limits import STOP_S, CommandGuard, SafetyFault, SafetyLimits
from m2distill_policy.spec import PANDA_JOINTS, libero_spec

SPEC = libero_spec(size_px=8)
FREE = replace(
    limits_of("libero_sim"),
    max_linear_m_s=10.0,
    max_angular_rad_s=100.0,
    max_first_linear_m_s=10.0,
    max_first_angular_rad_s=100.0,
)  # no limit is reached


def command(linear, angular=(0.0, 0.0, 0.0), width=0.04) -> Command:
    sample = ActionSample(np.zeros(7, np.float32), 0, 0.0, 0.0)
    return Command(np.array(linear, float), np.array(angular, float), width, 0, sample)


def linear(guard: CommandGuard, x: float) -> float:
    return float(guard.apply_limits(command([x, 0, 0]), None).linear_m_s[0])


def test_commands_grow_to_full_size_over_the_fade_in_and_again_after_a_restart():
    guard = CommandGuard(replace(FREE, fade_in_s=0.2), 20.0)  # four steps
    grown = [linear(guard, 1.0) for _ in range(5)]
    np.testing.assert_allclose(grown, [0.25, 0.5, 0.75, 1.0, 1.0])
    guard.restart()
    assert linear(guard, 1.0) == 0.25


def test_a_command_changes_by_at_most_one_step_towards_its_target():
    guard = CommandGuard(replace(FREE, max_linear_step_m_s=0.3), 20.0)
    got = [linear(guard, x) for x in (1.0, 1.0, -1.0, -0.1)]
    np.testing.assert_allclose(got, [0.3, 0.6, 0.3, 0.0])
    assert guard.apply_limits(command([1.0, 0, 0]), None).limited_by == ("step",)
    assert guard.apply_limits(command([0.4, 0, 0]), None).limited_by == ()


def test_gains_are_applied_before_limits():
    guard = CommandGuard(replace(FREE, linear_gain=0.25, angular_gain=0.5, max_linear_m_s=0.2), 20.0)
    given = guard.apply_limits(command([0.6, 0.8, 0.0], [0, 0, 2.0]), None)
    np.testing.assert_allclose(given.linear_m_s, [0.12, 0.16, 0.0])
    np.testing.assert_allclose(given.angular_rad_s, [0, 0, 1.0])
    assert given.limited_by == ("speed",)


def test_a_fast_first_command_is_a_fault_and_a_later_one_is_limited():
    guard = CommandGuard(replace(FREE, max_first_linear_m_s=0.5, max_linear_m_s=0.6), 20.0)
    with pytest.raises(SafetyFault, match=r"requests 0.7 m/s, limit 0.5 \(max_first_linear_m_s\)"):
        linear(guard, 0.7)
    assert linear(guard, 0.5) == 0.5
    assert linear(guard, 0.7) == pytest.approx(0.6)
    guard.restart()
    with pytest.raises(SafetyFault):
        linear(guard, 0.7)


@pytest.mark.parametrize(
    "bad", [command([np.nan, 0, 0]), command([0, 0, 0], [0, np.inf, 0]), command([0, 0, 0], width=np.nan)]
)
def test_a_command_that_is_not_finite_is_a_fault(bad):
    with pytest.raises(SafetyFault, match="not finite"):
        CommandGuard(FREE, 20.0).apply_limits(bad, None)


def test_the_simulators_limits_change_no_command_in_its_controllers_range():
    guard = CommandGuard(limits_of("libero_sim"), SPEC.rate_hz)
    for action in np.random.default_rng(0).uniform(-1.5, 1.5, (200, 7)).astype(np.float32):
        asked = sample_to_command(SPEC, ActionSample(action, 0, 0.0, 0.0), 0)
        given = guard.apply_limits(asked, None)
        assert given.limited_by == ()
        np.testing.assert_array_equal(given.linear_m_s, asked.linear_m_s)
        np.testing.assert_array_equal(given.angular_rad_s, asked.angular_rad_s)


ANY = st.floats(allow_nan=True, allow_infinity=True)
VECTORS = st.lists(st.one_of(st.floats(-2, 2), ANY), min_size=3, max_size=3)
POSITIONS = st.lists(st.floats(-2, 2), min_size=3, max_size=3)
LIMITS = st.builds(
    SafetyLimits,
    linear_gain=st.floats(0, 2),
    angular_gain=st.floats(0, 2),
    fade_in_s=st.floats(0, 1),
    max_first_linear_m_s=st.floats(0, 10),
    max_first_angular_rad_s=st.floats(0, 100),
    max_linear_m_s=st.floats(0, 2),
    max_angular_rad_s=st.floats(0, 5),
    max_linear_step_m_s=st.floats(0, 1),
    max_angular_step_rad_s=st.floats(0, 3),
)
EPS = 1e-9


@settings(max_examples=150, deadline=None)
@given(LIMITS, st.lists(st.tuples(VECTORS, VECTORS, POSITIONS, st.booleans()), min_size=1, max_size=12))
def test_no_input_produces_a_command_beyond_the_limits(limits, run):
    guard = CommandGuard(limits, 20.0)
    low, high = np.array(limits.workspace_min_m), np.array(limits.workspace_max_m)
    before_linear, before_angular = np.zeros(3), np.zeros(3)
    for asked_linear, asked_angular, position, restart in run:
        if restart:
            guard.restart()
            before_linear, before_angular = np.zeros(3), np.zeros(3)
        hand = np.array(position)
        try:
            given = guard.apply_limits(command(asked_linear, asked_angular), hand)
        except SafetyFault:
            continue
        v, w = given.linear_m_s, given.angular_rad_s
        assert np.isfinite([*v, *w]).all()
        assert np.linalg.norm(v) <= limits.max_linear_m_s + EPS
        assert np.linalg.norm(w) <= limits.max_angular_rad_s + EPS
        assert np.linalg.norm(w - before_angular) <= limits.max_angular_step_rad_s + EPS
        braked = "workspace" in given.limited_by
        assert braked or np.linalg.norm(v - before_linear) <= limits.max_linear_step_m_s + EPS
        after = hand + v * STOP_S
        assert (after >= np.minimum(low, hand) - EPS).all() and (after <= np.maximum(high, hand) + EPS).all()
        before_linear, before_angular = v, w


@pytest.mark.parametrize("arm", arm_names())
def test_presets_of_real_arms_keep_speed_and_margins_within_safe_bounds(arm):
    limits = limits_of(arm)
    assert limits.has_workspace == (arm != "libero_sim")
    if arm != "libero_sim":
        assert limits.max_linear_m_s <= 0.5 and limits.max_angular_rad_s <= 2.5
        assert limits.joint_margin_rad > 0 and limits.fade_in_s > 0 and limits.max_age_s <= 0.12


def test_the_unknown_arm_has_the_default_limits():
    assert limits_of("unknown") == SafetyLimits()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_linear_m_s": -1.0}, "max_linear_m_s is -1.0, allowed 0.0 to 10.0"),
        ({"max_age_s": math.nan}, "max_age_s is nan"),
        ({"workspace_min_m": (0.0, 0.0, 2.0)}, "the first below the second"),
        ({"workspace_max_m": (1.0, 1.0)}, "expected x, y, z each"),
        ({"workspace_max_m": (1.0, 1.0, math.nan)}, "the first below the second"),
        ({"joint_lower_rad": (1.0,)}, "joint_lower_rad and joint_upper_rad have 1 and 0 entries"),
        (
            {"joint_names": ("a", "b"), "joint_lower_rad": (0.0,), "joint_upper_rad": (1.0,)},
            "joint_names, joint_lower_rad and joint_upper_rad have 2, 1 and 1 entries, expected equal numbers",
        ),
        (
            {"joint_names": ("a", "a"), "joint_lower_rad": (0.0, 0.0), "joint_upper_rad": (1.0, 1.0)},
            "expected every joint once",
        ),
        ({"joint_lower_rad": (0.0, 1.0), "joint_upper_rad": (1.0, 1.0)}, "joint_lower_rad of joint 2 is 1.0"),
        (
            {"joint_names": ("a",), "joint_lower_rad": (math.nan,), "joint_upper_rad": (1.0,)},
            "joint_lower_rad of a is nan and joint_upper_rad 1.0, expected lower < upper",
        ),
    ],
)
def test_limits_out_of_range_are_rejected(wrong, message):
    with pytest.raises(UserError, match=message):
        SafetyLimits(**wrong)


def test_joint_limits_are_found_by_name_or_given_by_the_user():
    assert joint_ranges(PANDA_JOINTS, SafetyLimits())[3].tolist() == [-3.0718, -0.0698]
    with pytest.raises(UserError, match=r"no joint limits are known for \['arm_a'\]; set joint_names, joint_lower_rad"):
        joint_ranges(("arm_a", "elbow_joint"), SafetyLimits())
    given = SafetyLimits(joint_lower_rad=(-1.0, -2.0), joint_upper_rad=(1.0, 2.0))
    assert joint_ranges(("arm_a", "elbow_joint"), given).tolist() == [[-1, 1], [-2, 2]]
    with pytest.raises(UserError, match="have 2 and 2 numbers, expected 7 each"):
        joint_ranges(PANDA_JOINTS, given)
    named = replace(given, joint_names=("elbow_joint", "arm_a"))
    assert joint_ranges(("arm_a", "elbow_joint"), named).tolist() == [[-2, 2], [-1, 1]]
    assert joint_ranges(("arm_a",), named).tolist() == [[-2, 2]]
    with pytest.raises(
        UserError, match=r"joint_names lacks \['wrist'\] of the checkpoint, got \['elbow_joint', 'arm_a'\]"
    ):
        joint_ranges(("arm_a", "wrist"), named)


def test_every_limit_has_a_description():
    assert all(field.metadata["description"] for field in fields(SafetyLimits))


def test_the_documentation_lists_every_limit_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "ros.md").read_text()
    for field in fields(SafetyLimits):
        numbers = field.default if isinstance(field.default, tuple) else (field.default,)
        documented = ", ".join(f"{number:g}" for number in numbers) or "by name"
        assert f"| `{field.name}` | {documented} | {field.metadata['description']} |" in page
