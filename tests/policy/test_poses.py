"""Displacement of a pose: hand-computed rotations, and scipy as the oracle."""

import numpy as np
from scipy.spatial.transform import Rotation

from m2distill_policy.observations.poses import Pose, displace

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
