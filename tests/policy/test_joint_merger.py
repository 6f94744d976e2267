"""Joints merged by name from messages with all or a part of them, compared with hand-computed arrays."""

import numpy as np
import pytest

from m2distill_policy.observations.joint_merger import JointMerger
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS, libero_spec

ALL = PANDA_JOINTS + PANDA_FINGERS


@pytest.fixture
def merger() -> JointMerger:
    return JointMerger(libero_spec())


def test_joints_are_sorted_by_name_and_extra_joints_ignored(merger):
    values = {name: i / 10 for i, name in enumerate(PANDA_JOINTS)}
    values |= dict(zip(PANDA_FINGERS, (0.03, 0.04), strict=True)) | {"lift": 9.0}
    names = sorted(values, reverse=True)
    assert merger.update(names, [values[n] for n in names], 5) and merger.complete and not merger.problem
    joint, gripper = merger.positions()
    np.testing.assert_allclose(joint, np.arange(7) / 10, rtol=1e-6)
    np.testing.assert_allclose(gripper, [0.03, -0.04], rtol=1e-6)  # robosuite gives the second finger a negative sign
    assert joint.dtype == gripper.dtype == np.float32
    assert (merger.newest_ns, merger.oldest) == (5, ("", 5))


def test_parts_in_any_order_are_merged_with_a_stamp_per_joint(merger):
    assert merger.update(PANDA_FINGERS, [0.03, 0.04], 10) and not merger.complete
    assert merger.problem.startswith(f"joint_states lacks {list(PANDA_JOINTS)}, got {sorted(PANDA_FINGERS)}")
    assert merger.update(PANDA_JOINTS[4:], [0.5, 0.6, 0.7], 11) and "'panda_joint4']" in merger.problem
    assert merger.update(PANDA_JOINTS[:4], [0.1, 0.2, 0.3, 0.4], 12) and merger.complete and not merger.problem
    np.testing.assert_allclose(merger.positions()[0], np.arange(1, 8) / 10, rtol=1e-6)
    assert (merger.newest_ns, merger.oldest) == (12, (PANDA_FINGERS[0], 10))
    assert not merger.update(["lift"], [1.0], 13) and not merger.complete and merger.newest_ns == 12
    assert merger.update(PANDA_JOINTS, [0.0] * 7, 14) and not merger.complete  # the fingers have not arrived again
    assert merger.update(ALL, [0.0] * 9, 15) and merger.complete


@pytest.mark.parametrize(
    ("names", "positions", "named"),
    [
        (ALL[1:], [0.0] * 8, r"lacks ['panda_joint1']"),
        (ALL, [0.0] * 8, "9 names and 8 positions"),
        (ALL + ALL[:1], [0.0] * 10, "repeats"),
        (ALL, [0.0] * 8 + [float("nan")], "not finite at ['panda_finger_joint2']"),
        (ALL, [float("inf")] + [0.0] * 8, "not finite at ['panda_joint1']"),
        (ALL, [1e300] + [0.0] * 8, "not finite at ['panda_joint1']"),  # as float32, which the model reads
        ((), (), "lacks"),
        (("fr3_joint1",), (0.0,), "got ['fr3_joint1']"),
    ],
)
def test_malformed_joints_are_named(merger, names, positions, named):
    merger.update(names, positions, 0)
    assert named in merger.problem


def test_a_malformed_part_is_repaired_only_by_a_valid_message_with_its_joints(merger):
    merger.update(ALL, [0.0] * 9, 0)
    merger.update(PANDA_FINGERS, [0.0], 1)
    merger.update(PANDA_JOINTS, [0.0] * 7, 2)
    assert "2 names and 1 positions" in merger.problem
    merger.update(PANDA_FINGERS, [0.0, 0.0], 3)
    assert not merger.problem


def test_only_an_arm_joint_that_is_too_fast_within_a_short_time_jumps():
    merger = JointMerger(libero_spec(), max_speed_rad_s=2.0, max_gap_ns=100)
    for stamp_ns, positions, jumped in (
        (0, [0.0] * 9, ""),
        (10, [0.0] * 7 + [5.0, 5.0], ""),  # fingers are in m, or are a knuckle that is fast
        (20, [0.0, 0.09, *[0.0] * 7], ""),
        (30, [0.0, 0.0, -0.2, *[0.0] * 6], "panda_joint3"),
        (30, [0.0, 0.0, -0.2, *[0.0] * 6], ""),
        (20, [0.5, 0.0, -0.2, *[0.0] * 6], "panda_joint1"),
        (121, [0.0] * 9, ""),  # after a gap a joint may be anywhere
    ):
        merger.update(ALL, positions, stamp_ns)
        assert merger.jumped == jumped, stamp_ns
