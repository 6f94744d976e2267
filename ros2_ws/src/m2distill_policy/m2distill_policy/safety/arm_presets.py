"""Arms that the policy node knows: presets of its parameters, and joint limits by joint name.

A preset changes defaults; what the user sets stays set. Sources are given per number. "ours" is a choice, not a
specification; of the presets only `libero_sim` has been run: those of real arms are untried on hardware.
"""

import math
from dataclasses import fields
from typing import Any

import numpy as np

from m2distill_policy.errors import UserError, unknown_name
from m2distill_policy.safety.limits import SafetyLimits

_LIBERO_M_S, _LIBERO_RAD_S = 3**0.5, 300**0.5  # 0.05 m and 0.5 rad a step on each axis, at 20 Hz

# What a twist means to LIBERO's arm is not what it means to Servo: OSC_POSE aims 0.05 m ahead, and its compliance gets
# a quarter of the way within the step. Measured with full and partial actions in LiberoEnv: 0.25 of the commanded
# translation and 0.20 of the rotation in steady motion. Receivers that do what they are told get these gains.
_AS_LIBERO_MOVES = {"linear_gain": 0.25, "angular_gain": 0.2}

_SERVO = {  # MoveIt Servo, set to `command_in_type: speed_units`
    "output": "twist",
    "command_stamp": "sending",  # Servo ignores what is older than incoming_command_timeout, 0.1 s by default
    "max_linear_m_s": 0.1,  # ours; ISO 10218-1 calls 0.25 m/s reduced speed
    "max_angular_rad_s": 0.5,  # ours; Servo's own default scale is 0.8 rad/s
    "max_first_linear_m_s": 0.1,
    "max_first_angular_rad_s": 0.5,  # ours
    **_AS_LIBERO_MOVES,
}

ARMS: dict[str, dict[str, Any]] = {
    # An arm that nobody has described: the defaults of SafetyLimits.
    "unknown": {},
    # LIBERO's simulator. The limits are the most that its controller can be told, so they never bite, and an episode
    # over ROS is the episode of the offline rollout bit for bit: nobody stands beside a simulated arm, and a policy is
    # judged there by its own actions. Ages and watchdogs allow for a simulator slower than real time.
    "libero_sim": {
        "success_topic": "sim/success",
        "max_age_s": 0.25,
        "watchdog_s": 1.0,
        "command_timeout_s": 1.0,
        "linear_gain": 1.0,
        "angular_gain": 1.0,
        "fade_in_s": 0.0,
        "joint_margin_rad": -10.0,
        "max_linear_m_s": _LIBERO_M_S,
        "max_angular_rad_s": _LIBERO_RAD_S,
        "max_first_linear_m_s": _LIBERO_M_S,
        "max_first_angular_rad_s": _LIBERO_RAD_S,
        "max_linear_step_m_s": 2 * _LIBERO_M_S,
        "max_angular_step_rad_s": 2 * _LIBERO_RAD_S,
        "workspace_min_m": (-math.inf,) * 3,
        "workspace_max_m": (math.inf,) * 3,
    },
    # Franka Panda or FR3 under MoveIt Servo. Franka's own limits are 1.7 (Panda) and 3.0 m/s (FR3), 2.5 rad/s.
    "franka_servo": {
        **_SERVO,
        "workspace_min_m": (0.25, -0.45, 0.02),
        "workspace_max_m": (0.75, 0.45, 0.70),  # ours; reach is 0.855 m
        "gripper_action_scale": 0.5,  # franka_gripper takes the travel of one finger: half the opening
        "gripper_effort_n": 20.0,  # ours; the Franka Hand grasps with 70 N continuously
    },
    # The same arm under a Cartesian impedance controller that follows a PoseStamped. The target is the measured pose
    # and one step, as OSC_POSE aims; the compliance that the demonstrations had is the controller's part: full gain.
    "franka_impedance": {
        "output": "pose",
        "linear_gain": 1.0,
        "angular_gain": 1.0,
        "max_linear_m_s": 0.5,
        "max_angular_rad_s": 2.5,  # ours: targets at most 25 mm and 0.125 rad ahead at 20 Hz
        "max_first_linear_m_s": 1.0,
        "max_first_angular_rad_s": 5.0,  # ours
        "max_linear_step_m_s": 0.1,
        "max_angular_step_rad_s": 0.5,  # ours
        "workspace_min_m": (0.25, -0.45, 0.02),
        "workspace_max_m": (0.75, 0.45, 0.70),  # ours
        "gripper_action_scale": 0.5,
        "gripper_effort_n": 20.0,  # as above
    },
    # Universal Robots e-Series under MoveIt Servo, with a Robotiq 2F-85.
    "ur_servo": {
        **_SERVO,
        "frame_id": "base_link",  # of ur_description; `base`, the controller's own, is turned by half a turn
        "workspace_min_m": (-0.70, -0.70, 0.05),
        "workspace_max_m": (0.70, 0.70, 0.80),  # ours; UR5e's reach is 0.85 m
        "gripper_action_scale": -0.8 / 0.085,
        "gripper_action_offset": 0.8,  # 2F-85: knuckle 0 rad open, 0.8 rad closed
        "gripper_effort_n": 50.0,  # ours; 2F-85 grips with 20 to 235 N
    },
}

# Lower and upper end, rad. Panda and FR3: Franka's FCI documentation, robot limits. UR: e-Series manual, every joint
# turns a full turn either way; the elbow is limited to half a turn by ur_description, which keeps planners sane.
_PANDA = (
    (-2.8973, 2.8973),
    (-1.7628, 1.7628),
    (-2.8973, 2.8973),
    (-3.0718, -0.0698),
    (-2.8973, 2.8973),
    (-0.0175, 3.7525),
    (-2.8973, 2.8973),
)
_FR3 = (
    (-2.7437, 2.7437),
    (-1.7837, 1.7837),
    (-2.9007, 2.9007),
    (-3.0421, -0.1518),
    (-2.8065, 2.8065),
    (0.5445, 4.5169),
    (-3.0159, 3.0159),
)
_TURN = 2 * math.pi
JOINT_RANGES_RAD: dict[str, tuple[float, float]] = {
    **{f"panda_joint{i}": limits for i, limits in enumerate(_PANDA, 1)},
    **{f"fr3_joint{i}": limits for i, limits in enumerate(_FR3, 1)},
    **{f"{name}_joint": (-_TURN, _TURN) for name in ("shoulder_pan", "shoulder_lift", "wrist_1", "wrist_2", "wrist_3")},
    "elbow_joint": (-math.pi, math.pi),
}


def preset(arm: str) -> dict[str, Any]:
    """Parameter name -> value. Raises UserError for an arm that is not known."""
    if arm not in ARMS:
        raise UserError(unknown_name("arm", arm, ARMS))
    return ARMS[arm]


def limits_of(arm: str) -> SafetyLimits:
    names = {field.name for field in fields(SafetyLimits)}
    return SafetyLimits(**{name: value for name, value in preset(arm).items() if name in names})


def joint_ranges(names: tuple[str, ...], limits: SafetyLimits) -> np.ndarray:
    """(J, 2) lower and upper ends, rad: those of `limits` where given, else by name. Raises UserError."""
    lower, upper = limits.joint_lower_rad, limits.joint_upper_rad
    if lower or upper:
        if len(lower) != len(names) or len(upper) != len(names):
            raise UserError(
                f"joint_lower_rad and joint_upper_rad have {len(lower)} and {len(upper)} numbers, expected "
                f"{len(names)} each, in the order {list(names)}"
            )
        return np.stack([lower, upper], axis=1)
    unknown = [name for name in names if name not in JOINT_RANGES_RAD]
    if unknown:
        raise UserError(
            f"the limits of {unknown} are not known; set joint_lower_rad and joint_upper_rad, rad, in the "
            f"order {list(names)}"
        )
    return np.array([JOINT_RANGES_RAD[name] for name in names])
