"""Laying a bottle down on a sloping shelf, its neck up the slope.

The bottle is taken by its neck from the front, the hand tilted, so that the hand points about down once the bottle
leans.
"""

import numpy as np

from m2distill_sim.experts.motion import ALIGNED, OPEN_WIDTH, Intent, pointing, reach_along, tilted
from m2distill_sim.experts.pick_place import CARRY, LIFT, LIFTED, RIM_CLEARANCE, SLIPPED, SNUG
from m2distill_sim.experts.scene import Scene, ramp

TILT = np.radians(35.0)  # of the hand at the grasp, from pointing down
LEAN = np.radians(45.0)  # of the bottle when it is let go, from upright
GRIP = 0.13  # of the hand over the bottle's bottom
UP_SLOPE, ASIDE = 0.045, 0.035  # of its bottom from the region's middle; beside the rack's post
RADIUS = 0.023  # of its bottom's middle over the region's
OVER = 0.07  # of it over the shelf before it goes down
LET_GO, RESTING = 0.012, 0.035  # distance from where it shall lie at which it may be let go, and is left alone
BACK = 0.10  # of the hand from the neck at which it has drawn back


class Lay:
    """Moves the bottle `thing` to a sloping region; done once the hand has let go and drawn back."""

    def __init__(self, scene: Scene, thing: str, region: str, travel):
        self._thing, self._region, self._travel = thing, region, travel
        grip = scene.pose(thing)[0][2] + GRIP
        self._neck = scene.width_of(thing, 0.0, grip - 0.005, grip + 0.005)

    def intend(self, scene: Scene) -> Intent:
        bottom, rotation = scene.pose(self._thing)
        upright = rotation[:, 2]
        neck = bottom + GRIP * upright
        middle, slope = scene.slope(self._region)
        towards = slope[:2] / np.linalg.norm(slope[:2])
        across = np.array([-towards[1], towards[0], 0.0])
        normal = np.cross(across, slope) * -1.0
        taking, laying = (tilted(towards, tilt, across[:2]) for tilt in (TILT, TILT - LEAN))
        aim = middle + UP_SLOPE * slope + ASIDE * across + normal * RADIUS
        away = bottom - aim
        error = neck - scene.hand
        fingers_open = scene.width > OPEN_WIDTH

        lean = np.arccos(np.clip(upright[2], -1.0, 1.0))
        let_go = max(np.linalg.norm(away - away @ normal * normal), away @ normal) < LET_GO and lean > LEAN - 0.15
        if let_go or (np.linalg.norm(away) < RESTING and scene.width > self._neck + SNUG):
            back = -0.03 * pointing(scene.turn) if scene.width > self._neck + 0.03 else np.zeros(3)
            return Intent("release", back, -1.0, laying, done=bool(fingers_open and np.linalg.norm(error) > BACK))
        if np.linalg.norm(error) > (ALIGNED if fingers_open else SLIPPED):
            return Intent("reach", reach_along(scene, neck, taking), -1.0, taking)
        if scene.width > self._neck + SNUG:
            return Intent("grasp", error, 1.0, taking)

        travel, off_centre = self._travel, np.linalg.norm(away[:2])
        clear = travel.clear(scene, self._thing, scene.extent(self._thing), aim[:2], aim[2])
        near = off_centre < 0.10
        leaning = abs(lean - LEAN) < 0.15
        over = 1.0 if not leaning else ramp(off_centre, LET_GO, 3 * LET_GO)
        rise = max(aim[2] + over * OVER, 0.0 if near else clear + RIM_CLEARANCE) - bottom[2]
        go = 1.0 if near else ramp(bottom[2], clear - travel.SLACK, clear)
        most = LIFT + (CARRY - LIFT) * ramp(bottom[2] - travel.ground(scene, self._thing), 0.0, LIFTED)
        return Intent("carry", np.array([*(-away[:2] * go), min(rise, most)]), 1.0, laying if near else taking)
