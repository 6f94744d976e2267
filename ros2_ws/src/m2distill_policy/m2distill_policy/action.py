"""What comes out: a mixture sample becomes a Command in SI units, or the arm holds and says why."""

from dataclasses import dataclass

import numpy as np

from m2distill_policy.spec import ActionSpec, PolicySpec

ACTION_WIDTH = 7
# How the policy's mixture becomes an action. stochastic: a sample at the full standard deviation (LIBERO's evaluation);
# low_noise: a sampled mode with a standard deviation of 1e-4 (robomimic's and LIBERO's low_eval_noise); mode: the mean of
# the most likely mode.
SAMPLING_MODES = ("stochastic", "low_noise", "mode")
DEFAULT_SAMPLING = "low_noise"  # one default for running, evaluating, studying and promoting a policy


@dataclass(frozen=True)
class ActionSample:
    """One draw from the policy's mixture."""

    action: np.ndarray  # (7,) float32, nominally in [-1, 1]; ActionSpec says what it means
    mode: int  # which mixture component it was drawn from
    log_prob: float  # log density of `action` under the whole mixture
    entropy: float  # of the mixture's weights, nat: 0 one mode, log K all alike
    weights: tuple[float, ...] = ()  # of the K modes, sum 1; empty from a policy without a mixture


@dataclass(frozen=True)
class Command:
    """What the arm is told to do until the next command, in the base frame."""

    linear_m_s: np.ndarray  # (3,) float64
    angular_rad_s: np.ndarray  # (3,) float64, axis-angle rate
    gripper_width_m: float  # opening between the fingers
    stamp_ns: int  # of the observation it answers
    sample: ActionSample
    limited_by: tuple[str, ...] = ()  # names of the safety limits that shortened it


@dataclass(frozen=True)
class Hold:
    """The arm must not move, and why."""

    reason: str


def sample_to_command(spec: PolicySpec, sample: ActionSample, stamp_ns: int) -> Command:
    """Scale one action, clipped to [-1, 1] as robosuite's controller clips it, to SI units."""
    action = np.clip(sample.action.astype(np.float64), -1.0, 1.0)
    meaning = spec.action
    return Command(
        linear_m_s=action[:3] * meaning.linear_scale_m * spec.rate_hz,
        angular_rad_s=action[3:6] * meaning.angular_scale_rad * spec.rate_hz,
        gripper_width_m=float((1.0 - action[6]) / 2 * meaning.gripper_open_width_m),
        stamp_ns=stamp_ns,
        sample=sample,
    )


def command_to_action(
    meaning: ActionSpec, rate_hz: float, linear_m_s: np.ndarray, angular_rad_s: np.ndarray, gripper_width_m: float
) -> np.ndarray:
    """The inverse of `sample_to_command`, for a simulator driven by commands: (7,) float64 in [-1, 1]."""
    action = np.concatenate(
        [
            np.asarray(linear_m_s, dtype=np.float64) / (meaning.linear_scale_m * rate_hz),
            np.asarray(angular_rad_s, dtype=np.float64) / (meaning.angular_scale_rad * rate_hz),
            [1.0 - 2.0 * gripper_width_m / meaning.gripper_open_width_m],
        ]
    )
    return np.clip(action, -1.0, 1.0)
