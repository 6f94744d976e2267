"""Recorded actions in place of a network: the motion of an episode, step by step, while the arm stays near it."""

import numpy as np

from m2distill_policy.action import ActionSample
from m2distill_policy.errors import PolicyHoldError
from m2distill_policy.observations.observation import Observation
from m2distill_policy.recording.motion import RecordedMotion
from m2distill_policy.safety.limits import SafetyFault

ENDED = "the recording has ended"  # begins the reason of the hold that follows the last action


class ReplayPolicy:
    """Policy that implements `session.StepPolicy` by the actions of a recording, one per step, once.

    It is open loop: an observation decides only whether the arm is where it was recorded. A joint that is further away
    than the tolerance is a fault. After a hold, a pause or another order the motion continues at the next action; only
    `reseed`, at an activation of the node, begins it again.
    """

    def __init__(self, motion: RecordedMotion):
        self._motion = motion
        self.reseed()

    def reset(self) -> None:
        """Do nothing: the motion does not depend on earlier observations."""

    def set_text(self, embedding_L: np.ndarray) -> None:
        """Do nothing: there is one motion."""

    def reseed(self) -> None:
        """Begin with the first action."""
        self._next, self._farthest_rad = 0, 0.0

    def step(self, observation: Observation) -> ActionSample:
        """Return the next action.

        Raises:
            PolicyHoldError: There is none.
            SafetyFault: A joint is too far from the recording.
        """
        motion, steps = self._motion, len(self._motion.action)
        if self._next == steps:
            raise PolicyHoldError(
                f"{ENDED} after {steps} steps; the joints stayed within {self._farthest_rad:.3f} rad of it"
            )
        distances_J = np.abs(observation.joint - motion.joint[self._next])
        worst = int(np.argmax(distances_J))
        if not distances_J[worst] <= motion.tolerance_rad:
            raise SafetyFault(
                f"{motion.spec.joint_names[worst]} is {distances_J[worst]:.3f} rad from the recording at step "
                f"{self._next + 1} of {steps}, allowed is {motion.tolerance_rad:g}; move the arm to the beginning of "
                "the episode and start the replay again"
            )
        self._farthest_rad = max(self._farthest_rad, float(distances_J[worst]))
        self._next += 1
        return ActionSample(motion.action[self._next - 1], mode=0, log_prob=0.0, entropy=0.0)
