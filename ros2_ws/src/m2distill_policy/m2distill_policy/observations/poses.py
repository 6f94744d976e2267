"""Poses of the hand in the base frame."""

from typing import NamedTuple

import numpy as np


class Pose(NamedTuple):
    position_m: np.ndarray  # (3,) float64
    quat_xyzw: np.ndarray  # (4,) float64, of length 1


def displace(pose: Pose, translation_m: np.ndarray, rotation_rad: np.ndarray) -> Pose:
    """The pose moved by (3,) and turned by the axis-angle (3,), both given in the base frame."""
    x, y, z, w = pose.quat_xyzw
    rx, ry, rz, rw = _quaternion(rotation_rad)
    turned = np.array(
        [  # rotation times quat: turned about the base's axes
            rw * x + rx * w + ry * z - rz * y,
            rw * y - rx * z + ry * w + rz * x,
            rw * z + rx * y - ry * x + rz * w,
            rw * w - rx * x - ry * y - rz * z,
        ]
    )
    return Pose(pose.position_m + translation_m, turned / np.linalg.norm(turned))


def _quaternion(rotation_rad: np.ndarray) -> np.ndarray:
    """(4,) xyzw of an axis-angle."""
    angle = float(np.linalg.norm(rotation_rad))
    return np.array([*(rotation_rad * (np.sinc(angle / (2 * np.pi)) / 2)), np.cos(angle / 2)])
