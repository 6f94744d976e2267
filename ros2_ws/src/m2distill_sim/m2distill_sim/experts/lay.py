"""Lay a bottle down on a sloping shelf, its neck up the slope.

The hand grasps the bottle by its neck from the front. The hand is tilted, so that it points approximately down once the
bottle leans. Lengths in m.
"""

import numpy as np

from m2distill_sim.experts.motion import (
    ALIGNED,
    OPEN_WIDTH,
    Intent,
    Transit,
    approach_along_fingers,
    finger_direction,
    tilted_hand,
)
from m2distill_sim.experts.pick_place import CARRY, GRASP_LOST, GRASP_TOLERANCE, LIFT, LIFTED, RIM_CLEARANCE
from m2distill_sim.experts.scene import Scene, distance, ramp

TILT = np.radians(35.0)  # of the hand at the grasp, from pointing down
LEAN = np.radians(45.0)  # of the bottle when it is released, from upright
GRIP = 0.13  # of the hand over the bottle's bottom
UP_SLOPE, ASIDE = 0.045, 0.035  # of its bottom from the region's middle; beside the rack's post
RADIUS = 0.023  # of its bottom's middle over the region's
OVER = 0.07  # of it over the shelf before it descends
RELEASE, RESTING = 0.012, 0.035  # distance from its target at which it may be released, and is left alone
BACK = 0.10  # of the hand from the neck at which it has retreated


class LayDown:
    """Moves the bottle `name` to a sloping region; done once the hand has released it and retreated."""

    def __init__(self, scene: Scene, name: str, region: str, transit: Transit):
        self._name, self._region, self._transit = name, region, transit
        grip = scene.pose(name)[0][2] + GRIP
        self._neck_width = scene.object_width(name, 0.0, grip - 0.005, grip + 0.005)

    def intend(self, scene: Scene) -> Intent:
        bottom, rotation = scene.pose(self._name)
        upright = rotation[:, 2]
        neck = bottom + GRIP * upright
        middle, slope = scene.slope(self._region)
        towards = slope[:2] / np.linalg.norm(slope[:2])
        across = np.array([-towards[1], towards[0], 0.0])
        normal = np.cross(across, slope) * -1.0
        taking, laying = (tilted_hand(towards, tilt, across[:2]) for tilt in (TILT, TILT - LEAN))
        target = middle + UP_SLOPE * slope + ASIDE * across + normal * RADIUS
        away = bottom - target
        error = neck - scene.hand
        fingers_open = scene.gripper_width > OPEN_WIDTH

        lean = np.arccos(np.clip(upright[2], -1.0, 1.0))
        in_place = max(distance(away - away @ normal * normal), float(away @ normal)) < RELEASE
        may_release = in_place and lean > LEAN - 0.15
        if may_release or (distance(away) < RESTING and scene.gripper_width > self._neck_width + GRASP_TOLERANCE):
            released = scene.gripper_width > self._neck_width + 0.03
            back = -0.03 * finger_direction(scene.orientation) if released else np.zeros(3)
            return Intent("release", back, -1.0, laying, done=bool(fingers_open and distance(error) > BACK))
        if distance(error) > (ALIGNED if fingers_open else GRASP_LOST):
            return Intent("reach", approach_along_fingers(scene, neck, taking), -1.0, taking)
        if scene.gripper_width > self._neck_width + GRASP_TOLERANCE:
            return Intent("grasp", error, 1.0, taking)

        near = distance(away[:2]) < 0.10
        leaning = bool(abs(lean - LEAN) < 0.15)
        return Intent("carry", self._carry(scene, bottom, target, near, leaning), 1.0, laying if near else taking)

    def _carry(self, scene: Scene, bottom: np.ndarray, target: np.ndarray, near: bool, leaning: bool) -> np.ndarray:
        """Return the move (3,) of a bottle with its bottom at `bottom` (3,) to the target (3,)."""
        transit, away = self._transit, bottom - target
        clear = transit.carry_height(scene, self._name, scene.bounds(self._name), target[:2], target[2])
        over = 1.0 if not leaning else ramp(distance(away[:2]), RELEASE, 3 * RELEASE)
        rise = max(target[2] + over * OVER, 0.0 if near else clear + RIM_CLEARANCE) - bottom[2]
        advance = 1.0 if near else ramp(bottom[2], clear - transit.SLACK, clear)
        most = LIFT + (CARRY - LIFT) * ramp(bottom[2] - transit.support_height(scene, self._name), 0.0, LIFTED)
        return np.array([*(-away[:2] * advance), min(rise, most)])
