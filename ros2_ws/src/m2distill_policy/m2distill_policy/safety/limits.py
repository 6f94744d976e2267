"""Limits on inputs and on every command. The ROS node declares each as a parameter of the same name.

The defaults are for an arm that nobody has described yet, beside which a person may stand; arms.py has those of known
arms. CommandGuard is the last to touch a command before it leaves the core.
"""

import math
from dataclasses import dataclass, fields, replace

import numpy as np

from m2distill_policy.action import Command
from m2distill_policy.errors import UserError
from m2distill_policy.utils.parameters import parameter

STOP_S = 0.15  # the workspace is left a stop of this length before its walls: the most that a stop may take
AT_REST = np.zeros(3)


class SafetyFault(UserError):
    """A command or a state that the arm must not go on from; it latches until somebody resets it."""


@dataclass(frozen=True)
class SafetyLimits:
    """Input limits hold the arm, which goes on by itself; speed, step and workspace shorten a command; joint margin and
    first command are faults, which latch."""

    max_age_s: float = parameter(0.12, "oldest input acted on, by its stamp", at_least=0.001, at_most=60.0)
    max_lead_s: float = parameter(0.05, "how far a stamp may lie in the future", at_least=0.0, at_most=60.0)
    max_skew_s: float = parameter(0.1, "between the stamps of one step's inputs", at_least=0.0, at_most=60.0)
    watchdog_s: float = parameter(
        0.25, "longest silence of an input, by the steady clock", at_least=0.01, at_most=600.0
    )
    command_timeout_s: float = parameter(
        0.12,
        "a command not followed by another within this time is followed by a "
        "zero command, by the steady clock, even while the policy hangs; not "
        "in lockstep",
        at_least=0.01,
        at_most=60.0,
    )
    linear_gain: float = parameter(0.25, "of the policy's translation, before all limits", at_least=0.0, at_most=2.0)
    angular_gain: float = parameter(0.2, "of the policy's rotation, before all limits", at_least=0.0, at_most=2.0)
    max_first_linear_m_s: float = parameter(
        0.25, "the first command after a start or a hold is a fault when it asks for more", at_least=0.0, at_most=10.0
    )
    max_first_angular_rad_s: float = parameter(
        0.8, "the first command after a start or a hold is a fault when it asks for more", at_least=0.0, at_most=100.0
    )
    fade_in_s: float = parameter(
        0.5, "time after a start in which commands grow to full size", at_least=0.0, at_most=10.0
    )
    max_linear_m_s: float = parameter(0.25, "speed limit", at_least=0.0, at_most=10.0)
    max_angular_rad_s: float = parameter(0.8, "speed limit", at_least=0.0, at_most=100.0)
    max_linear_step_m_s: float = parameter(
        0.05,
        "largest change of the velocity from one command to the next; stopping is exempt",
        at_least=0.0,
        at_most=20.0,
    )
    max_angular_step_rad_s: float = parameter(
        0.2, "largest change of the angular velocity; stopping is exempt", at_least=0.0, at_most=200.0
    )
    workspace_min_m: tuple[float, ...] = parameter(
        (-0.8, -0.8, 0.02),
        "corner of the box that the hand stays in: x, y, z in the base frame; "
        "-inf here and inf there: no box, and no `ee_pose` needed",
    )
    workspace_max_m: tuple[float, ...] = parameter((0.8, 0.8, 1.2), "the box's other corner")
    joint_margin_rad: float = parameter(
        0.1,
        "a joint nearer than this to its limit is a fault; -10: up to 10 rad beyond, that is, never",
        at_least=-10.0,
        at_most=1.0,
    )
    joint_lower_rad: tuple[float, ...] = parameter(
        (), "lower joint limits in the order of the checkpoint's joint names; empty: those of arms.py, by name"
    )
    joint_upper_rad: tuple[float, ...] = parameter((), "upper joint limits")

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

    @property
    def has_workspace(self) -> bool:
        return any(math.isfinite(v) for v in self.workspace_min_m + self.workspace_max_m)


class CommandGuard:
    """Judges the commands of one run after another; remembers the last one, which the next may not jump away from."""

    def __init__(self, limits: SafetyLimits, rate_hz: float):
        self._limits = limits
        self._fade_steps = limits.fade_in_s * rate_hz
        self._low, self._high = np.array(limits.workspace_min_m), np.array(limits.workspace_max_m)
        self.restart()

    def restart(self) -> None:
        """The arm stands still: the next command is a first one."""
        self._steps = 0
        self._linear = self._angular = AT_REST

    def judge(self, command: Command, position_m: np.ndarray | None) -> Command:
        """The command as it may be sent, with the names of the limits that shortened it. Raises SafetyFault.

        `position_m` (3,) is where the hand is; None only without a workspace.
        """
        limits = self._limits
        with np.errstate(over="ignore", invalid="ignore"):  # what comes out infinite or as no number is refused below
            linear = command.linear_m_s * limits.linear_gain
            angular = command.angular_rad_s * limits.angular_gain
        if not np.isfinite([*linear, *angular, command.gripper_width_m]).all():
            raise SafetyFault(
                f"the policy produced a command that is not finite: {linear.tolist()} m/s, "
                f"{angular.tolist()} rad/s, gripper {command.gripper_width_m} m"
            )
        if self._steps == 0:
            _refuse_jump("m/s", linear, limits.max_first_linear_m_s, "max_first_linear_m_s")
            _refuse_jump("rad/s", angular, limits.max_first_angular_rad_s, "max_first_angular_rad_s")
        self._steps += 1
        if self._steps < self._fade_steps:
            linear, angular = linear * (self._steps / self._fade_steps), angular * (self._steps / self._fade_steps)
        allowed = {"speed": (_shorten(linear, limits.max_linear_m_s), _shorten(angular, limits.max_angular_rad_s))}
        allowed["step"] = (
            _approach(self._linear, allowed["speed"][0], limits.max_linear_step_m_s),
            _approach(self._angular, allowed["speed"][1], limits.max_angular_step_rad_s),
        )
        allowed["workspace"] = (self._brake(allowed["step"][0], position_m), allowed["step"][1])
        limited_by, asked = [], (linear, angular)
        for name, granted in allowed.items():
            if not all(map(np.array_equal, granted, asked)):
                limited_by.append(name)
            asked = granted
        self._linear, self._angular = asked
        return replace(command, linear_m_s=self._linear, angular_rad_s=self._angular, limited_by=tuple(limited_by))

    def _brake(self, linear: np.ndarray, position_m: np.ndarray | None) -> np.ndarray:
        """Towards a wall no faster than reaches it in STOP_S; outside, only back in. Each axis by itself."""
        if position_m is None:
            return linear
        return np.clip(
            linear,
            np.minimum((self._low - position_m) / STOP_S, 0.0),
            np.maximum((self._high - position_m) / STOP_S, 0.0),
        )


def _refuse_jump(unit: str, velocity: np.ndarray, limit: float, name: str) -> None:
    speed = math.hypot(*velocity)
    if speed > limit:
        raise SafetyFault(
            f"the first command asks for {speed:.3g} {unit}, limit {limit:g} ({name}): the policy may "
            "have met a situation unlike its demonstrations"
        )


def _shorten(vector: np.ndarray, limit: float) -> np.ndarray:
    """The vector at most `limit` long; its direction is kept."""
    norm = math.hypot(*vector)
    return vector if norm <= limit else vector * (limit / norm)


def _approach(previous: np.ndarray, wanted: np.ndarray, limit: float) -> np.ndarray:
    """`wanted`, or as far on the way there as `limit` allows. Not further from rest than the longer of the two."""
    change = wanted - previous
    return wanted if math.hypot(*change) <= limit else previous + _shorten(change, limit)
