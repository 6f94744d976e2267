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


def displace(pose: Pose, translation_m: np.ndarray, rotation_rad: np.ndarray) -> Pose:
    """Return the pose after a translation and a rotation, both in the base frame.

    Args:
        pose: start.
        translation_m: (3,) float64.
        rotation_rad: (3,) float64, axis-angle.
    """
    x, y, z, w = pose.quat_xyzw
    rx, ry, rz, rw = _quaternion(rotation_rad)
    product = np.array(
        [  # rotation times orientation: a rotation about the axes of the base
            rw * x + rx * w + ry * z - rz * y,
            rw * y - rx * z + ry * w + rz * x,
            rw * z + rx * y - ry * x + rz * w,
            rw * w - rx * x - ry * y - rz * z,
        ]
    )
    return Pose(pose.position_m + translation_m, product / np.linalg.norm(product))


def _quaternion(rotation_rad: np.ndarray) -> np.ndarray:
    """Return the unit quaternion (4,), xyzw, of an axis-angle (3,)."""
    angle = float(np.linalg.norm(rotation_rad))
    return np.array([*(rotation_rad * (np.sinc(angle / (2 * np.pi)) / 2)), np.cos(angle / 2)])
