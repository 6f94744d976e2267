"""Displacement of a pose, and what a policy observes of one: hand-computed rotations, and scipy as the oracle."""

import numpy as np
from scipy.spatial.transform import Rotation

from m2distill_policy.observations.poses import Pose, axis_angle, difference, displace, hand_state, nearest_rotations
from m2distill_policy.spec import HAND_DOWN

HALF = 0.5**0.5


def test_a_quarter_turn_about_z_and_a_translation_along_x_of_the_base():
    moved = displace(
        Pose(np.array([0.3, 0.1, 0.2]), np.array([1.0, 0, 0, 0])), np.array([0.1, 0, 0]), np.array([0, 0, np.pi / 2])
    )
    np.testing.assert_allclose(moved.position_m, [0.4, 0.1, 0.2])
    np.testing.assert_allclose(moved.quat_xyzw, [HALF, HALF, 0, 0], atol=1e-12)


def test_zero_rotation_keeps_the_orientation_and_small_rotations_are_exact():
    quat = np.array([0.5, -0.5, 0.5, 0.5])
    pose = Pose(np.zeros(3), quat)
    np.testing.assert_array_equal(displace(pose, np.zeros(3), np.zeros(3)).quat_xyzw, quat)
    rng = np.random.default_rng(0)
    for size in (1e-9, 1e-3, 0.5, 3.0):
        rotation = rng.normal(size=3) * size
        expected = (Rotation.from_rotvec(rotation) * Rotation.from_quat(quat)).as_quat()
        got = displace(pose, np.zeros(3), rotation).quat_xyzw
        np.testing.assert_allclose(got * np.sign(got @ expected), expected, atol=1e-12)


def random_poses(count: int) -> list[Pose]:
    rng = np.random.default_rng(1)
    quats = rng.normal(size=(count, 4))
    return [Pose(rng.normal(size=3), quat / np.linalg.norm(quat)) for quat in quats]


def test_the_difference_of_two_poses_leads_from_one_to_the_other():
    for start, end in zip(random_poses(50), random_poses(51)[1:], strict=True):
        way = difference(start, end)
        there = displace(start, way[:3], way[3:])
        np.testing.assert_allclose(there.position_m, end.position_m, atol=1e-12)
        assert abs(there.quat_xyzw @ end.quat_xyzw) > 1 - 1e-12 and np.linalg.norm(way[3:]) <= np.pi + 1e-9
    for size in (0.0, 1e-12, 1e-3):
        rotation = np.array([size, 0, 0])
        np.testing.assert_allclose(difference(start, displace(start, rotation, rotation))[3:], rotation, atol=1e-15)


def test_both_quaternions_of_a_rotation_are_one_state_that_is_continuous_about_the_reference():
    for pose in random_poses(50):
        state = hand_state(pose, HAND_DOWN)
        np.testing.assert_array_equal(hand_state(Pose(pose.position_m, -pose.quat_xyzw), HAND_DOWN), state)
        rotation = Rotation.from_rotvec(state[3:])
        assert abs(rotation.as_quat() @ pose.quat_xyzw) > 1 - 1e-6 and state.dtype == np.float32
    # a hand that points down swings through the half turn at which w changes its sign
    down = Pose(np.zeros(3), np.array(HAND_DOWN))
    swings = [displace(down, np.zeros(3), np.array([angle, 0.1, 0.2])) for angle in np.linspace(-1, 1, 100)]
    states = np.array([hand_state(swing, HAND_DOWN) for swing in swings])
    assert np.abs(np.diff(states, axis=0)).max() < 0.05
    assert states[0, 3] < np.pi < states[-1, 3]


def test_axis_angles_of_a_file_become_those_of_the_live_state_and_equal_ones_stay_bit_for_bit():
    poses = random_poses(200)
    live = np.array([hand_state(pose, HAND_DOWN)[3:] for pose in poses])
    stored = np.array([axis_angle(pose.quat_xyzw) for pose in poses], np.float32)  # as LIBERO's writer, either sign
    np.testing.assert_allclose(nearest_rotations(stored, HAND_DOWN), live, atol=2e-3)
    flipped = np.abs(stored - live).max(axis=1) > 1e-3
    assert 50 < flipped.sum() < 150
    np.testing.assert_array_equal(nearest_rotations(live, HAND_DOWN), live)
    np.testing.assert_array_equal(nearest_rotations(np.zeros((2, 3), np.float32), HAND_DOWN), np.zeros((2, 3)))
