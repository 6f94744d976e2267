"""Joint limits by joint name, for the arms whose limits are published.

Panda and FR3: Franka's FCI documentation, robot limits. UR: e-Series manual, every joint turns a full turn either way;
ur_description limits the elbow to half a turn, which keeps planners in one branch.
"""

import math

import numpy as np

from m2distill_policy.errors import UserError
from m2distill_policy.safety.limits import SafetyLimits

_PANDA_RAD = (
    (-2.8973, 2.8973),
    (-1.7628, 1.7628),
    (-2.8973, 2.8973),
    (-3.0718, -0.0698),
    (-2.8973, 2.8973),
    (-0.0175, 3.7525),
    (-2.8973, 2.8973),
)
_FR3_RAD = (
    (-2.7437, 2.7437),
    (-1.7837, 1.7837),
    (-2.9007, 2.9007),
    (-3.0421, -0.1518),
    (-2.8065, 2.8065),
    (0.5445, 4.5169),
    (-3.0159, 3.0159),
)
_FULL_TURN_RAD = 2 * math.pi
_UR_FULL_TURN_JOINTS = ("shoulder_pan", "shoulder_lift", "wrist_1", "wrist_2", "wrist_3")
JOINT_LIMITS_RAD: dict[str, tuple[float, float]] = {
    **{f"panda_joint{i}": limits for i, limits in enumerate(_PANDA_RAD, 1)},
    **{f"fr3_joint{i}": limits for i, limits in enumerate(_FR3_RAD, 1)},
    **{f"{name}_joint": (-_FULL_TURN_RAD, _FULL_TURN_RAD) for name in _UR_FULL_TURN_JOINTS},
    "elbow_joint": (-math.pi, math.pi),
}


def joint_ranges(names: tuple[str, ...], limits: SafetyLimits) -> np.ndarray:
    """Return the lower and upper limit of every joint.

    Args:
        names: the checkpoint's joint names, J of them.
        limits: `joint_lower_rad` and `joint_upper_rad` take precedence over the table. They belong to `joint_names`,
            or without those to `names` in this order. `joint_names` alone leaves the limits to the table.

    Returns:
        (J, 2) float64, rad.

    Raises:
        UserError: the limits of a joint are unknown, or `limits` has another number of joints.
    """
    if not names:
        return np.zeros((0, 2))
    lower, upper = limits.joint_lower_rad, limits.joint_upper_rad
    if limits.joint_names and lower:
        given = dict(zip(limits.joint_names, zip(lower, upper, strict=True), strict=True))
        if missing := [name for name in names if name not in given]:
            raise UserError(f"joint_names lacks {missing} of the checkpoint, got {list(given)}; add their joint limits")
        return np.array([given[name] for name in names])
    if lower or upper:
        if len(lower) != len(names) or len(upper) != len(names):
            raise UserError(
                f"joint_lower_rad and joint_upper_rad have {len(lower)} and {len(upper)} numbers, expected "
                f"{len(names)} each, in the order {list(names)}"
            )
        return np.stack([lower, upper], axis=1)
    unknown = [name for name in names if name not in JOINT_LIMITS_RAD]
    if unknown:
        raise UserError(
            f"no joint limits are known for {unknown}; set joint_names, joint_lower_rad and joint_upper_rad (rad), "
            f"for {list(names)}"
        )
    return np.array([JOINT_LIMITS_RAD[name] for name in names])
