"""Policy outputs: a sample of the action mixture, and the command in SI units that follows from it."""

from dataclasses import dataclass

import numpy as np

from m2distill_policy.spec import ActionSpec, PolicySpec

ACTION_WIDTH = 7
# How the policy's mixture becomes an action. stochastic: a sample at the full standard deviation, as in LIBERO's
# evaluation. low_noise: a sampled mode with a standard deviation of 1e-4, the low_eval_noise of robomimic and LIBERO.
# mode: the mean of the most likely mode.
SAMPLING_MODES = ("stochastic", "low_noise", "mode")
DEFAULT_SAMPLING = "low_noise"  # one default for running, evaluating, studying and promoting a policy


@dataclass(frozen=True)
class ActionSample:
    """One draw from the policy's mixture."""

    action: np.ndarray  # (7,) float32, nominally in [-1, 1]; ActionSpec defines its meaning
    mode: int  # index of the mixture component that it was drawn from
    log_prob: float  # log density of `action` under the whole mixture
    entropy: float  # of the mixture weights, nat: 0 for one mode, log K for equal weights
    weights: tuple[float, ...] = ()  # of the K modes, sum 1; empty for a policy without a mixture


@dataclass(frozen=True)
class Command:
    """Velocity and gripper command in the base frame, valid until the next command."""

    linear_m_s: np.ndarray  # (3,) float64
    angular_rad_s: np.ndarray  # (3,) float64, axis-angle rate
    gripper_width_m: float  # opening between the fingers
    stamp_ns: int  # of the observation that the command follows from
    sample: ActionSample
    limited_by: tuple[str, ...] = ()  # names of the safety limits that reduced it


@dataclass(frozen=True)
class Hold:
    """Decision not to move the arm."""

    reason: str


def sample_to_command(spec: PolicySpec, sample: ActionSample, stamp_ns: int) -> Command:
    """Convert an action to SI units.

    The action is clipped to [-1, 1] first, as robosuite's controller clips it.

    Args:
        spec: scales of the action and the control rate.
        sample: the policy's action, (7,) float32.
        stamp_ns: stamp of the observation.
    """
    action = np.clip(sample.action.astype(np.float64), -1.0, 1.0)
    scales = spec.action
    return Command(
        linear_m_s=action[:3] * scales.linear_scale_m * spec.rate_hz,
        angular_rad_s=action[3:6] * scales.angular_scale_rad * spec.rate_hz,
        gripper_width_m=float((1.0 - action[6]) / 2 * scales.gripper_open_width_m),
        stamp_ns=stamp_ns,
        sample=sample,
    )


def command_to_action(
    scales: ActionSpec, rate_hz: float, linear_m_s: np.ndarray, angular_rad_s: np.ndarray, gripper_width_m: float
) -> np.ndarray:
    """Convert a command to an action; the inverse of `sample_to_command`.

    Args:
        scales: scales of the action.
        rate_hz: control rate.
        linear_m_s: (3,) translation.
        angular_rad_s: (3,) axis-angle rate.
        gripper_width_m: opening between the fingers.

    Returns:
        (7,) float64, clipped to [-1, 1].
    """
    action = np.concatenate(
        [
            np.asarray(linear_m_s, dtype=np.float64) / (scales.linear_scale_m * rate_hz),
            np.asarray(angular_rad_s, dtype=np.float64) / (scales.angular_scale_rad * rate_hz),
            [1.0 - 2.0 * gripper_width_m / scales.gripper_open_width_m],
        ]
    )
    return np.clip(action, -1.0, 1.0)
