"""Limits on inputs and on every command. Each has a safe default; the ROS node declares each as a parameter."""

from dataclasses import dataclass, replace

import numpy as np

from m2distill_policy.action import ActionSample, Command


@dataclass(frozen=True)
class SafetyLimits:
    """Ages and skew in ns; speeds in SI units.

    The speed defaults are the most that LIBERO's controller can command (0.05 m and 0.5 rad a step on each axis, at
    20 Hz), so they change nothing in simulation: on a real arm set them far lower.
    """

    max_age_ns: int = 250_000_000  # five periods at 20 Hz
    max_lead_ns: int = 50_000_000
    max_skew_ns: int = 100_000_000  # between the oldest and the newest input of one step
    max_linear_m_s: float = 1.0 * 3**0.5
    max_angular_rad_s: float = 10.0 * 3**0.5


def why_unsafe(sample: ActionSample) -> str:
    """Empty when the sample may become a command, else the reason for a latched fault."""
    if not np.isfinite(sample.action).all():
        return f"the policy produced an action that is not finite: {sample.action.tolist()}"
    return ""


def limit_speed(command: Command, limits: SafetyLimits) -> Command:
    """Shorten the two velocity vectors to their limits; direction is kept."""
    return replace(command, linear_m_s=_shorten(command.linear_m_s, limits.max_linear_m_s),
                   angular_rad_s=_shorten(command.angular_rad_s, limits.max_angular_rad_s))


def _shorten(vector: np.ndarray, limit: float) -> np.ndarray:
    norm = float(np.linalg.norm(vector))
    return vector if norm <= limit else vector * (limit / norm)
