"""Pose that is commanded to an arm whose controller follows poses: of the policy, and of an operator.

A stop is one pose, latched until the arm is commanded again. An operator's target moves with the commanded velocity and
stays near the hand. No ROS import and no clock here: the caller passes the poses with the times of their arrival.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from m2distill_policy.observations.poses import Pose, are_near, difference, displace
from m2distill_policy.robot import robot_from_settings
from m2distill_policy.safety.arm_presets import limits_from_settings
from m2distill_policy.safety.limits import shorten, within_speed

MOVED_M, MOVED_RAD = 0.05, 0.2  # an arm that differs more from its latched pose, after poses were missing, was moved


class PoseTarget:
    """Target of an arm, and the pose at which it is stopped. `stop` may be called from any thread.

    Args:
        watchdog_s: Age above which a measured pose is no target of an arm at rest.
    """

    def __init__(self, watchdog_s: float):
        self._watchdog_s = watchdog_s
        self.clear()

    def clear(self) -> None:
        """Clear what was sent and received."""
        self.measured: Pose | None = None  # the last valid one
        self._measured_s = -math.inf  # when it arrived
        self.moving = False  # whether a target was sent and no stop after it
        self._latched: Pose | None = None  # the pose of every stop since the last target
        self._suspended = False  # a stop since then was not sent, because the pose was unknown

    def receive(self, pose: Pose, now_s: float) -> None:
        """Keep a valid pose; a stop needs it most when no valid one follows."""
        self.measured, self._measured_s = pose, now_s

    def age_s(self, now_s: float) -> float:
        """Return the time since the last valid pose; infinite without one."""
        return now_s - self._measured_s

    def sent(self) -> None:
        """Record that a target was sent, so that the arm moves."""
        self.moving, self._latched, self._suspended = True, None, False

    def step(self, translation_m: np.ndarray, rotation_rad: np.ndarray) -> Pose:
        """Return the measured pose moved by one step, as robosuite's OSC_POSE sets its goal."""
        assert self.measured is not None  # it is an input: without it no command and no stop is sent
        return displace(self.measured, translation_m, rotation_rad)

    def stop(self, now_s: float) -> Pose | None:
        """Return the pose of a stop, or None if no pose may be commanded.

        The first one is measured. The next ones are the same, because one measured later would follow an arm that
        sinks. If poses were missing meanwhile and the arm is elsewhere now, it was moved, and the present pose is
        latched.

        While the arm moves, its target is near its last pose, so commanding that pose stops it. An arm at rest may have
        been moved by others since its last pose, or its driver was restarted, so that commanding an old pose, also a
        latched one, would move it. Its controller keeps the target that it has.
        """
        pose = self.measured
        if pose is None or not (self.moving or self.age_s(now_s) <= self._watchdog_s):
            self._suspended = True
            return None
        latched, suspended, self._suspended = self._latched, self._suspended, False
        if latched is None or (suspended and not are_near(latched, pose, MOVED_M, MOVED_RAD)):
            latched = pose
        self._latched, self.moving = latched, False
        return latched

    def unlatch(self) -> None:
        """Hold a new pose at the next stop, because others may have moved the arm since the last one."""
        self._latched, self._suspended = None, False


class LedTarget(PoseTarget):
    """Target that an operator leads: his velocity moves it, beginning at the measured pose.

    It is never further from the measured pose than a policy's target can be: by one step at the speed limits of the
    arm, and at most a full action. So every step of a demonstration is an action that a policy can give, and an arm
    that is blocked is pushed no harder. The target stays in the workspace. From outside, only the way back is open.

    Args:
        arm: Settings of the arm.
        period_s: Time between two targets.
    """

    def __init__(self, arm: Mapping[str, Any], period_s: float):
        self._limits, p = limits_from_settings(arm), robot_from_settings(arm).parameters
        super().__init__(self._limits.watchdog_s)
        limits = self._limits
        self._period_s = period_s
        self._target: Pose | None = None  # the last one
        self.lead_m = min(limits.max_linear_m_s / p.rate_hz, limits.linear_gain * p.linear_scale_m)
        self.lead_rad = min(limits.max_angular_rad_s / p.rate_hz, limits.angular_gain * p.angular_scale_rad)
        self._low, self._high = np.array(limits.workspace_min_m), np.array(limits.workspace_max_m)

    def lead(self, linear_m_s: np.ndarray, angular_rad_s: np.ndarray) -> Pose:
        """Return the next target for a velocity within the arm's limits; a measured pose is known."""
        hand = self.measured
        assert hand is not None
        before = self._target if self.moving and self._target is not None else hand
        linear, angular = within_speed(self._limits, linear_m_s, angular_rad_s)
        ahead = difference(hand, displace(before, linear * self._period_s, angular * self._period_s))
        shift, turn = shorten(ahead[:3], self.lead_m), shorten(ahead[3:], self.lead_rad)
        low, high = np.minimum(self._low, hand.position_m), np.maximum(self._high, hand.position_m)
        shift = np.clip(hand.position_m + shift, low, high) - hand.position_m
        self._target = displace(hand, shift, turn)
        return self._target
