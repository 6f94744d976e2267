"""Poses of the hand, and the six numbers that a policy observes of one.

A rotation has two quaternions, q and -q, and drivers give either. They become different axis-angles, a turn apart in
angle. Of the two, the one nearer to a reference orientation counts, in training and live alike. So the six numbers are
continuous while the hand stays within half a turn of the reference.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from m2distill_policy.errors import MessageError

TURN_RAD = 2 * np.pi


class Pose(NamedTuple):
    """Position and orientation of the hand in the base frame."""

    position_m: np.ndarray  # (3,) float64
    quat_xyzw: np.ndarray  # (4,) float64, unit length


def valid_pose(position_m: Sequence[float] | np.ndarray, quat_xyzw: Sequence[float] | np.ndarray) -> Pose:
    """Return a received pose with a quaternion of unit length. Raises MessageError for one that is no pose."""
    pose = Pose(np.array(position_m, dtype=np.float64), np.array(quat_xyzw, dtype=np.float64))
    length = math.hypot(*pose.quat_xyzw)
    if not np.isfinite([*pose.position_m, length]).all() or abs(length - 1.0) > 1e-3:
        raise MessageError(
            f"is not a valid pose: position {pose.position_m.tolist()} m, quaternion of length {length:g}"
        )
    return Pose(pose.position_m, pose.quat_xyzw / length)


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


def difference(start: Pose, end: Pose) -> np.ndarray:
    """Return the translation in m and the rotation in rad (6,), of at most half a turn, that `displace` needs."""
    x, y, z, w = end.quat_xyzw
    sx, sy, sz, sw = start.quat_xyzw * [-1, -1, -1, 1]  # the inverse of the start
    turn = np.array(
        [
            w * sx + x * sw + y * sz - z * sy,
            w * sy - x * sz + y * sw + z * sx,
            w * sz + x * sy - y * sx + z * sw,
            w * sw - x * sx - y * sy - z * sz,
        ]
    )
    turn = turn if turn[3] >= 0 else -turn
    sine = np.linalg.norm(turn[:3])
    angle = 2 * np.arctan2(sine, turn[3])  # exact for small angles, unlike the arc cosine
    rotation = turn[:3] * (angle / sine) if sine > 0 else np.zeros(3)
    return np.concatenate([end.position_m - start.position_m, rotation])


def axis_angle(quat_xyzw: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return a unit quaternion as axis times angle (3,) in rad, by robosuite's formula. The angle is in [0, 2 pi]."""
    x, y, z, w = quat_xyzw
    sine = np.sqrt(max(1.0 - w * w, 0.0))
    return np.zeros(3) if sine < 1e-8 else np.array([x, y, z]) * 2.0 * np.arccos(np.clip(w, -1.0, 1.0)) / sine


def hand_state(pose: Pose, reference_xyzw: Sequence[float]) -> np.ndarray:
    """Return what a policy observes of the hand: position in m and axis-angle in rad, (6,) float32.

    Args:
        pose: of the hand.
        reference_xyzw: orientation that decides which of the two quaternions counts.
    """
    sign = 1.0 if pose.quat_xyzw @ np.array(reference_xyzw) >= 0 else -1.0
    return np.concatenate([pose.position_m, axis_angle(sign * pose.quat_xyzw)]).astype(np.float32)


def nearest_rotations(rotations_T3: np.ndarray, reference_xyzw: Sequence[float]) -> np.ndarray:
    """Return axis-angles (T, 3) in rad as `hand_state` has them. Rows that are so already do not change."""
    rotations = rotations_T3.astype(np.float64)
    angles = np.linalg.norm(rotations, axis=1, keepdims=True)
    axes = np.divide(rotations, angles, out=np.zeros_like(rotations), where=angles > 0)
    reference = np.array(reference_xyzw)
    cosines = np.sin(angles / 2) * (axes @ reference[:3, None]) + np.cos(angles / 2) * reference[3]
    return np.where(cosines >= 0, rotations_T3, (rotations - TURN_RAD * axes).astype(rotations_T3.dtype))


def _quaternion(rotation_rad: np.ndarray) -> np.ndarray:
    """Return the unit quaternion (4,), xyzw, of an axis-angle (3,)."""
    angle = float(np.linalg.norm(rotation_rad))
    return np.array([*(rotation_rad * (np.sinc(angle / (2 * np.pi)) / 2)), np.cos(angle / 2)])
