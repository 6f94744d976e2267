"""Conversion of joystick input to a velocity of the arm and an opening of the gripper, while the deadman is held.

No ROS import and no clock here: the caller passes messages with their times and asks for the motion.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from m2distill_policy.errors import UserError
from m2distill_policy.robot import robot_from_settings
from m2distill_policy.safety.arm_presets import limits_from_settings
from m2distill_policy.utils.parameters import parameter

AXES = 6  # x, y, z, then rotation about them
ORDERS = ("start", "keep", "discard", "success", "failure")  # to the recorder, each with a button
BUTTONS = ("deadman", "open", "close", *ORDERS)


@dataclass(frozen=True)
class TeleopSettings:
    """Parameters of the joystick.

    The defaults fit a gamepad as joy_node numbers it. Axes: left stick 0 and 1, right stick 3 and 4, triggers 2 and 5.
    Buttons: A 0, B 1, X 2, Y 3, left shoulder 4, right shoulder 5, back 6, start 7.
    """

    axes: tuple[float, ...] = parameter(
        (1.0, 0.0, 4.0, -1.0, -1.0, 3.0),
        "joystick axes for x, y, z, roll, pitch and yaw; -1: none",
        at_least=-1.0,
        at_most=63.0,
    )
    axis_signs: tuple[float, ...] = parameter(
        (1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        "signs of those axes, or factors on their speeds",
        at_least=-1.0,
        at_most=1.0,
    )
    deadman_button: int = parameter(4, "button that is held while the arm may move", at_least=0, at_most=63)
    open_button: int = parameter(1, "button that opens the gripper", at_least=0, at_most=63)
    close_button: int = parameter(0, "button that closes the gripper", at_least=0, at_most=63)
    start_button: int = parameter(7, "button that starts an episode of the recorder; -1: none", at_least=-1, at_most=63)
    keep_button: int = parameter(3, "button that ends the episode and keeps it; -1: none", at_least=-1, at_most=63)
    discard_button: int = parameter(
        2, "button that ends the episode and discards it; -1: none", at_least=-1, at_most=63
    )
    success_button: int = parameter(
        5, "button that labels the open episode a success; -1: none", at_least=-1, at_most=63
    )
    failure_button: int = parameter(
        6, "button that labels the open episode a failure; -1: none", at_least=-1, at_most=63
    )
    dead_zone: float = parameter(0.05, "deflection below which an axis counts as centred", at_least=0.0, at_most=0.9)
    linear_m_s: float = parameter(0.1, "speed at full deflection, in m/s", at_least=0.001, at_most=1.0)
    angular_rad_s: float = parameter(0.5, "rotation speed at full deflection, in rad/s", at_least=0.001, at_most=3.0)
    gripper_open_m: float = parameter(0.08, "opening of the open gripper, in m", at_least=0.001, at_most=0.5)
    joy_timeout_s: float = parameter(
        0.3,
        "time without a joystick message after which the deadman counts as released, in s",
        at_least=0.05,
        at_most=5.0,
    )
    joy_max_age_s: float = parameter(
        0.3,
        "maximum age of a joystick message, by its stamp and by the time it was sent, in s; older ones are ignored",
        at_least=0.01,
        at_most=3600.0,
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, (low, high) = getattr(self, field.name), field.metadata["bounds"]
            values = value if isinstance(value, tuple) else (value,)
            if not all(low <= number <= high for number in values):
                raise UserError(f"{field.name} is {value}, allowed {low:g} to {high:g}")
            if isinstance(value, tuple) and len(value) != AXES:
                raise UserError(f"{field.name} has {len(value)} numbers, expected {AXES}: x, y, z, roll, pitch, yaw")
        if not all(axis.is_integer() for axis in self.axes):
            raise UserError(f"axes is {self.axes}, expected whole numbers; -1: none")
        functions: dict[int, str] = {}
        for name in (f"{function}_button" for function in BUTTONS):
            number = getattr(self, name)
            if number in functions:
                raise UserError(f"{name} and {functions[number]} are both {number}; give each a button of its own")
            if number >= 0:
                functions[number] = name


def teleop_defaults(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of the teleoperation that the settings of an arm state.

    Its rate and frame are the arm's. Its speeds are at most those of a full action and the speed limits, so that a
    recorded command is never beyond what a policy can command.
    """
    robot = robot_from_settings(arm)
    defaults = {name: arm[name] for name in ("rate_hz", "frame_id") if arm.get(name)}
    if "gripper_open_width_m" in robot.given:
        defaults["gripper_open_m"] = min(arm["gripper_open_width_m"], 0.5)
    if robot.described:
        limits, p = limits_from_settings(arm), robot.parameters
        full = limits.linear_gain * p.linear_scale_m * p.rate_hz, limits.angular_gain * p.angular_scale_rad * p.rate_hz
        for name, most, limit in (
            ("linear_m_s", full[0], limits.max_linear_m_s),
            ("angular_rad_s", full[1], limits.max_angular_rad_s),
        ):
            low, _ = TeleopSettings.__dataclass_fields__[name].metadata["bounds"]
            defaults[name] = max(low, min(getattr(TeleopSettings, name), most, limit))
    return defaults


@dataclass(frozen=True)
class Motion:
    """Commanded motion in the base frame."""

    linear_m_s: np.ndarray  # (3,) float64
    angular_rad_s: np.ndarray  # (3,) float64
    gripper_width_m: float | None  # None: the gripper stays as it is


class Teleoperator:
    """State of the joystick and of the gripper."""

    def __init__(self, settings: TeleopSettings):
        self.settings = settings
        self.problem = ""  # fault of the last joystick message; empty: none
        self._received_s = -math.inf
        self._deadman = False
        self._needs_press = False  # the deadman counts only after it was released
        self._deflection = np.zeros(AXES)
        self._width_m: float | None = None
        self._down: set[str] | None = None  # orders whose buttons are down; None: unknown
        self._orders: list[str] = []

    def receive(self, axes: Sequence[float], buttons: Sequence[int], now_s: float) -> None:
        """Process a joystick message. A malformed one releases the deadman."""
        s = self.settings
        needed = [int(i) for i in s.axes if i >= 0]
        if len(axes) <= max(needed, default=-1) or not np.isfinite([axes[i] for i in needed]).all():
            self._reject(f"the joystick has {len(axes)} axes, finite numbers on {needed} are expected")
        elif len(buttons) <= max(s.deadman_button, s.open_button, s.close_button):
            self._reject(f"the joystick has {len(buttons)} buttons, the deadman is button {s.deadman_button}")
        else:
            self.problem = ""
            self._press(buttons, now_s)
            self._received_s = now_s
            pressed = bool(buttons[s.deadman_button])
            self._needs_press &= pressed
            self._deadman = pressed and not self._needs_press
            raw = np.array([np.clip(axes[int(i)], -1, 1) if i >= 0 else 0.0 for i in s.axes]) * s.axis_signs
            self._deflection = np.sign(raw) * np.maximum(np.abs(raw) - s.dead_zone, 0) / (1 - s.dead_zone)
            if self._deadman and buttons[s.open_button]:
                self._width_m = s.gripper_open_m
            elif self._deadman and buttons[s.close_button]:
                self._width_m = 0.0

    def _press(self, buttons: Sequence[int], now_s: float) -> None:
        """Note the orders whose buttons are newly down. One that is down after a silence may have been down before."""
        numbers = {order: getattr(self.settings, f"{order}_button") for order in ORDERS}
        down = {order for order, i in numbers.items() if 0 <= i < len(buttons) and buttons[i]}
        if self._down is not None and now_s - self._received_s <= self.settings.joy_timeout_s:
            self._orders += [order for order in ORDERS if order in down - self._down]
        self._down = down

    def take_orders(self) -> list[str]:
        """Return the orders to the recorder since the last call. They do not need the deadman."""
        orders, self._orders = self._orders, []
        return orders

    def gripper_commanded(self, width_m: float) -> None:
        """Continue another node's command to the gripper at the next takeover."""
        if math.isfinite(width_m):
            self._width_m = width_m

    def release(self) -> None:
        """Count the deadman as released until it is released and pressed again."""
        self._deadman, self._needs_press = False, True
        self._down, self._orders = None, []

    def motion(self, now_s: float) -> Motion | None:
        """Return the motion to command, or None if the deadman is not held.

        The gripper keeps the opening that was commanded last, by this or another node.
        """
        if not self._deadman or now_s - self._received_s > self.settings.joy_timeout_s:
            self._deadman = False
            return None
        return Motion(
            self._deflection[:3] * self.settings.linear_m_s,
            self._deflection[3:] * self.settings.angular_rad_s,
            self._width_m,
        )

    def _reject(self, problem: str) -> None:
        self.problem = problem
        self._deadman, self._down = False, None
