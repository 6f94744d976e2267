"""Poses of the hand in the base frame."""

from typing import NamedTuple

import numpy as np


class Pose(NamedTuple):
    """Position and orientation of the hand in the base frame."""

    position_m: np.ndarray  # (3,) float64
    quat_xyzw: np.ndarray  # (4,) float64, unit length


def are_near(a: Pose, b: Pose, distance_m: float, angle_rad: float) -> bool:
    """Return whether two poses differ by at most this distance and this angle."""
    cosine = min(1.0, abs(float(a.quat_xyzw @ b.quat_xyzw)))
    return bool(np.linalg.norm(a.position_m - b.position_m) <= distance_m and 2 * np.arccos(cosine) <= angle_rad)


def compose(outer: Pose, inner: Pose) -> Pose:
    """Return the pose in the frame of `outer` of what has the pose `inner` in the frame that `outer` places."""
    position = outer.position_m + rotate(outer.quat_xyzw, inner.position_m)
    return Pose(position, _product(outer.quat_xyzw, inner.quat_xyzw))


def inverse(pose: Pose) -> Pose:
    """Return the pose of the frame that `pose` is in, in the frame that it places."""
    quat = pose.quat_xyzw * [-1.0, -1.0, -1.0, 1.0]
    return Pose(-rotate(quat, pose.position_m), quat)


def rotate(quat_xyzw: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return a vector (3,) rotated by a unit quaternion."""
    x, y, z, w = quat_xyzw.tolist()  # numbers of Python, because numpy takes 10 times as long for three of them
    a, b, c = vector.tolist()
    tx, ty, tz = 2 * (y * c - z * b), 2 * (z * a - x * c), 2 * (x * b - y * a)
    return np.array([a + w * tx + y * tz - z * ty, b + w * ty + z * tx - x * tz, c + w * tz + x * ty - y * tx])


def displace(pose: Pose, translation_m: np.ndarray, rotation_rad: np.ndarray) -> Pose:
    """Return the pose after a translation and a rotation, both in the base frame.

    Args:
        pose: start.
        translation_m: (3,) float64.
        rotation_rad: (3,) float64, axis-angle.
    """
    product = _product(_quaternion(rotation_rad), pose.quat_xyzw)  # a rotation about the axes of the base
    return Pose(pose.position_m + translation_m, product / np.linalg.norm(product))


def _product(a_xyzw: np.ndarray, b_xyzw: np.ndarray) -> np.ndarray:
    """Return the quaternion (4,), xyzw, of the rotation b followed by a."""
    ax, ay, az, aw = a_xyzw.tolist()
    x, y, z, w = b_xyzw.tolist()
    return np.array(
        [
            aw * x + ax * w + ay * z - az * y,
            aw * y - ax * z + ay * w + az * x,
            aw * z + ax * y - ay * x + az * w,
            aw * w - ax * x - ay * y - az * z,
        ]
    )


def _quaternion(rotation_rad: np.ndarray) -> np.ndarray:
    """Return the unit quaternion (4,), xyzw, of an axis-angle (3,)."""
    angle = float(np.linalg.norm(rotation_rad))
    return np.array([*(rotation_rad * (np.sinc(angle / (2 * np.pi)) / 2)), np.cos(angle / 2)])
