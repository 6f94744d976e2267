"""Limits on inputs and on every command. The policy node declares each as a parameter of the same name.

The defaults are for an unknown arm beside which a person may stand; arm files hold those of known arms. CommandGuard is
the last code that changes a command before it leaves the core.
"""

import math
from dataclasses import dataclass, fields, replace

import numpy as np

from m2distill_policy.action import Command
from m2distill_policy.errors import UserError
from m2distill_policy.utils.parameters import parameter

STOP_S = 0.15  # longest time that a stop may take; commands brake so that it ends inside the workspace
AT_REST = np.zeros(3)


class SafetyFault(UserError):
    """A command or a state from which the arm must not continue. It latches until it is reset."""


@dataclass(frozen=True)
class SafetyLimits:
    """Limits of one arm.

    A violated input limit holds the arm, which resumes by itself. Speed, step and workspace limits reduce a command. A
    violated joint margin or first-command limit is a fault, which latches.
    """

    max_age_s: float = parameter(0.12, "maximum age of an input, by its stamp, in s", at_least=0.001, at_most=60.0)
    max_lead_s: float = parameter(0.05, "maximum lead of a stamp into the future, in s", at_least=0.0, at_most=60.0)
    max_skew_s: float = parameter(
        0.1, "maximum difference between the stamps of one step's inputs, in s", at_least=0.0, at_most=60.0
    )
    watchdog_s: float = parameter(
        0.25, "maximum silence of an input, by the steady clock, in s", at_least=0.01, at_most=600.0
    )
    max_joint_speed_rad_s: float = parameter(
        7.0,
        "an arm joint that is faster from one message to the next has jumped, in rad/s; the arm is held for 0.5 s; 0 "
        "disables the check",
        at_least=0.0,
        at_most=1000.0,
    )
    command_timeout_s: float = parameter(
        0.12,
        "a zero command follows when no new command is sent for this time, by the steady clock, in s, even while the "
        "policy hangs; not in lockstep",
        at_least=0.01,
        at_most=60.0,
    )
    linear_gain: float = parameter(
        0.25, "factor on the policy's translation, before all limits", at_least=0.0, at_most=2.0
    )
    angular_gain: float = parameter(
        0.2, "factor on the policy's rotation, before all limits", at_least=0.0, at_most=2.0
    )
    max_first_linear_m_s: float = parameter(
        0.25, "a faster first command after a start or a hold is a fault, in m/s", at_least=0.0, at_most=10.0
    )
    max_first_angular_rad_s: float = parameter(
        0.8, "a faster first command after a start or a hold is a fault, in rad/s", at_least=0.0, at_most=100.0
    )
    fade_in_s: float = parameter(
        0.5, "time after a start in which commands grow to full size, in s", at_least=0.0, at_most=10.0
    )
    max_linear_m_s: float = parameter(0.25, "speed limit, in m/s", at_least=0.0, at_most=10.0)
    max_angular_rad_s: float = parameter(0.8, "angular speed limit, in rad/s", at_least=0.0, at_most=100.0)
    max_linear_step_m_s: float = parameter(
        0.05,
        "maximum change of the velocity from one command to the next, in m/s; stopping is exempt",
        at_least=0.0,
        at_most=20.0,
    )
    max_angular_step_rad_s: float = parameter(
        0.2, "maximum change of the angular velocity, in rad/s; stopping is exempt", at_least=0.0, at_most=200.0
    )
    workspace_min_m: tuple[float, ...] = parameter(
        (-0.8, -0.8, 0.02),
        "lower corner of the box for the hand: x, y, z in the base frame, in m; -inf here and inf in workspace_max_m "
        "disable the box, and `ee_pose` is not needed",
    )
    workspace_max_m: tuple[float, ...] = parameter((0.8, 0.8, 1.2), "upper corner of the box, in m")
    joint_margin_rad: float = parameter(
        0.1,
        "a joint nearer than this to its limit is a fault, in rad; -10 in effect disables the check",
        at_least=-10.0,
        at_most=1.0,
    )
    joint_names: tuple[str, ...] = parameter(
        (),
        "joints of the arm, in the order of joint_lower_rad and joint_upper_rad and of a policy's inputs; empty: the "
        "checkpoint's",
    )
    joint_lower_rad: tuple[float, ...] = parameter(
        (), "lower joint limits in rad; empty: the published ones by name, of Panda, FR3 and UR"
    )
    joint_upper_rad: tuple[float, ...] = parameter((), "upper joint limits in rad; see joint_lower_rad")

    def __post_init__(self):
        for field in fields(self):
            low, high = field.metadata["bounds"]
            value = getattr(self, field.name)
            if low is not None and not low <= value <= high:
                raise UserError(f"{field.name} is {value}, allowed {low} to {high}")
        low, high = self.workspace_min_m, self.workspace_max_m
        if len(low) != 3 or len(high) != 3 or not all(a < b for a, b in zip(low, high, strict=True)):
            raise UserError(
                f"workspace_min_m is {list(low)} and workspace_max_m {list(high)}, expected x, y, z each, "
                "the first below the second"
            )
        self._check_joint_limits()

    def _check_joint_limits(self) -> None:
        names, lower, upper = self.joint_names, self.joint_lower_rad, self.joint_upper_rad
        if len(lower) != len(upper) or (names and lower and len(names) != len(lower)):
            count = f"{len(names)}, " if names else ""
            raise UserError(
                f"{'joint_names, ' if names else ''}joint_lower_rad and joint_upper_rad have {count}{len(lower)} and "
                f"{len(upper)} entries, expected equal numbers"
            )
        if len(set(names)) != len(names):
            raise UserError(f"joint_names is {list(names)}, expected every joint once")
        for index, (low, high) in enumerate(zip(lower, upper, strict=True)):
            if not low < high:
                joint = names[index] if names else f"joint {index + 1}"
                raise UserError(
                    f"joint_lower_rad of {joint} is {low} and joint_upper_rad {high}, expected lower < upper"
                )

    @property
    def has_workspace(self) -> bool:
        """Whether any side of the workspace is finite, so that the pose of the hand is required."""
        return any(math.isfinite(v) for v in self.workspace_min_m + self.workspace_max_m)


class CommandGuard:
    """Applies the limits to successive commands. It keeps the last command, because the step limit depends on it."""

    def __init__(self, limits: SafetyLimits, rate_hz: float):
        self._limits = limits
        self._fade_steps = limits.fade_in_s * rate_hz
        self._low, self._high = np.array(limits.workspace_min_m), np.array(limits.workspace_max_m)
        self.restart()

    def restart(self) -> None:
        """Start again from rest: the next command counts as the first one."""
        self._steps = 0
        self._linear = self._angular = AT_REST

    def apply_limits(self, command: Command, position_m: np.ndarray | None) -> Command:
        """Return the command within all limits, with the names of the limits that reduced it.

        Args:
            command: the policy's command.
            position_m: (3,) position of the hand in the base frame; None only without a workspace.

        Raises:
            SafetyFault: the command is not finite, or it is the first one and exceeds its limit.
        """
        limits = self._limits
        with np.errstate(over="ignore", invalid="ignore"):  # a result that is not finite is rejected below
            linear = command.linear_m_s * limits.linear_gain
            angular = command.angular_rad_s * limits.angular_gain
        if not np.isfinite([*linear, *angular, command.gripper_width_m]).all():
            raise SafetyFault(
                f"the policy produced a command that is not finite: {linear.tolist()} m/s, "
                f"{angular.tolist()} rad/s, gripper {command.gripper_width_m} m"
            )
        if self._steps == 0:
            _check_first_command("m/s", linear, limits.max_first_linear_m_s, "max_first_linear_m_s")
            _check_first_command("rad/s", angular, limits.max_first_angular_rad_s, "max_first_angular_rad_s")
        self._steps += 1
        if self._steps < self._fade_steps:
            linear, angular = linear * (self._steps / self._fade_steps), angular * (self._steps / self._fade_steps)
        allowed = {"speed": within_speed(limits, linear, angular)}
        allowed["step"] = (
            _approach(self._linear, allowed["speed"][0], limits.max_linear_step_m_s),
            _approach(self._angular, allowed["speed"][1], limits.max_angular_step_rad_s),
        )
        allowed["workspace"] = (self._brake(allowed["step"][0], position_m), allowed["step"][1])
        limited_by, requested = [], (linear, angular)
        for name, limited in allowed.items():
            if not all(map(np.array_equal, limited, requested)):
                limited_by.append(name)
            requested = limited
        self._linear, self._angular = requested
        return replace(command, linear_m_s=self._linear, angular_rad_s=self._angular, limited_by=tuple(limited_by))

    def _brake(self, linear: np.ndarray, position_m: np.ndarray | None) -> np.ndarray:
        """Limit the velocity towards each wall so that the hand reaches it in STOP_S at the earliest.

        Outside the box only the way back is allowed. Each axis is limited independently.
        """
        if position_m is None:
            return linear
        return np.clip(
            linear,
            np.minimum((self._low - position_m) / STOP_S, 0.0),
            np.maximum((self._high - position_m) / STOP_S, 0.0),
        )


def _check_first_command(unit: str, velocity: np.ndarray, limit: float, name: str) -> None:
    speed = math.hypot(*velocity)
    if speed > limit:
        raise SafetyFault(
            f"the first command requests {speed:.3g} {unit}, limit {limit:g} ({name}): the situation may differ from "
            "the policy's demonstrations; check the scene and the arm's pose, then reset the fault"
        )


def shorten(vector: np.ndarray, limit: float) -> np.ndarray:
    """Return the vector with a length of at most `limit` and the same direction."""
    norm = math.hypot(*vector)
    return vector if norm <= limit else vector * (limit / norm)


def within_speed(
    limits: SafetyLimits, linear_m_s: np.ndarray, angular_rad_s: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the two parts of a velocity, in m/s and rad/s (3,), shortened to the speed limits."""
    return shorten(linear_m_s, limits.max_linear_m_s), shorten(angular_rad_s, limits.max_angular_rad_s)


def _approach(previous: np.ndarray, target: np.ndarray, limit: float) -> np.ndarray:
    """Return `target`, or the point at distance `limit` on the way from `previous` to it."""
    change = target - previous
    return target if math.hypot(*change) <= limit else previous + shorten(change, limit)
