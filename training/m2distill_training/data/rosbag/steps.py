"""Values of which an episode consists: its ticks, what was observed then, and the steps with their actions."""

from dataclasses import dataclass

import numpy as np

from m2distill_policy.observations.observation import Observation
from m2distill_policy.observations.poses import Pose


@dataclass(frozen=True)
class Step:
    observation: Observation  # its stamp is that of its newest part
    action: np.ndarray  # (7,) float64 in [-1, 1]
    commanded: bool  # else nothing was, and the arm stood still
    clipped: bool  # the command was beyond [-1, 1]
    intervention: bool  # an operator had taken over


@dataclass(frozen=True)
class Tick:
    """Time of a step.

    `shown` and `sent_ns` are set if a policy acted: the stamps of its inputs, and the time of recording of its report.
    """

    stamp_ns: int  # not before those of its inputs
    shown: tuple[int, ...] = ()
    sent_ns: int = 0


@dataclass(frozen=True)
class Moment:
    """What was observed at a tick; the pose of the hand if it is an input."""

    tick: Tick
    observation: Observation
    pose: Pose | None
