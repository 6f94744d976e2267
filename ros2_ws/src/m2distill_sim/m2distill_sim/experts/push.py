"""Pushing a flat round thing over the table: one finger inside of its rim pushes ahead, the other keeps it from sliding
off."""

import numpy as np

from m2distill_sim.experts.grasp import Rim
from m2distill_sim.experts.motion import (
    ALIGNED,
    FINGERTIP,
    HOVER,
    OPEN_WIDTH,
    Intent,
    hand_yaw,
    reach_down,
    turned,
    yaw_of,
)
from m2distill_sim.experts.pick_place import SLIPPED
from m2distill_sim.experts.scene import Scene

LOW = 0.003  # of the fingertips over the table
INSIDE = 0.008  # of the hand from the rim
FIRM = 0.035  # width of the fingers at which they hold the rim
THERE, NEAR = 0.012, 0.03  # from the goal when the pushing ends, and when it begins again
STEP = 0.022  # m the hand is sent ahead of itself
BACK = 0.12  # height of the hand over the table at which it has drawn back


class Push:
    """Pushes an object to a region; done once it is there and the hand has risen."""

    def __init__(self, scene: Scene, thing: str, region: str, travel):
        self._thing, self._region, self._travel = thing, region, travel
        self._rim = Rim(scene.outline(thing))

    def intend(self, scene: Scene) -> Intent:
        thing = scene.extent(self._thing)
        way = scene.place(self._region) - thing.centre[:2]
        left, ground = np.linalg.norm(way), thing.low[2]
        side_now = np.arctan2(*(scene.hand - thing.centre)[1::-1])
        fingers_open = scene.width > OPEN_WIDTH
        touching = np.linalg.norm(self._at(scene, side_now, ground) - scene.hand) < SLIPPED and not fingers_open

        if left < (THERE if touching else NEAR):
            rise = ground + BACK + HOVER - scene.hand[2] if scene.width > FIRM + 0.01 else 0.0
            return Intent("release", np.array([0.0, 0.0, rise]), -1.0, turned(yaw_of(scene.turn)),
                          done=bool(scene.hand[2] > ground + BACK))
        if touching:
            error, turn = self._at(scene, side_now, ground) - scene.hand, turned(yaw_of(scene.turn))
            if scene.width > FIRM:
                return Intent("grasp", error, 1.0, turn)
            ahead = way / left * min(left + 0.01, STEP) + 0.5 * error[:2]
            return Intent("carry", np.array([*ahead, error[2]]), 1.0, turn)
        point = self._at(scene, np.arctan2(way[1], way[0]), ground)
        turn = turned(hand_yaw(way) + self._travel.style.yaw_rad)
        if np.linalg.norm(point - scene.hand) < ALIGNED and fingers_open:
            return Intent("grasp", point - scene.hand, 1.0, turn)
        over = self._travel.over(scene, self._thing, point)
        return Intent("reach", reach_down(scene, point, thing.high[2], over, turn, self._travel.style), -1.0, turn)

    def _at(self, scene: Scene, side: float, ground: float) -> np.ndarray:
        """(3,) at the rim, as low as the table allows."""
        inwards = -INSIDE * np.array([np.cos(side), np.sin(side)])
        return np.array([*self._rim.at(scene, self._thing, side)[:2] + inwards, ground + FINGERTIP + LOW])
