"""Pushing a flat round thing over the table: closed fingers inside of it push against its rim, on the side it shall go
to. Lightly: fingers that press down make the thing stick to the table, and slide over its rim.
"""

import numpy as np

from m2distill_sim.experts.grasp import EMPTY_WIDTH, Rim
from m2distill_sim.experts.motion import FINGERTIP, HOVER, Intent, hand_yaw, reach_down, turned, yaw_of
from m2distill_sim.experts.scene import Scene

INSIDE = 0.35  # of the radius: where the fingers come down
OUTSIDE = 0.85  # of the radius: where they have slid over the rim
TIPS = 0.0095  # of the fingertips over the table
LOW = 0.008  # above that, at which they still push
PRESS = 0.35  # of that is how far it is sent down
ASKEW, HIGH = np.radians(60.0), 0.06  # error of the hand's yaw that is left alone, at this height over that
STEP = 0.03  # m the hand is sent ahead of itself
DEEP = 0.4  # of the region's half width: how near to its middle the thing shall come
THERE, NEAR = 0.010, 0.018  # from there when the pushing ends, and when it begins again
BACK = 0.12  # height of the hand over the table at which it has drawn back


class Push:
    """Pushes an object to a region; done once it is there and the hand has risen."""

    def __init__(self, scene: Scene, thing: str, region: str, travel):
        self._thing, self._region, self._travel = thing, region, travel
        self._radius = Rim(scene.outline(thing)).radius

    def intend(self, scene: Scene) -> Intent:
        thing, hand = scene.extent(self._thing), scene.hand
        middle, half = scene.place(self._region), DEEP * scene.model.site(self._region).size[:2]
        way = middle + np.clip(thing.centre[:2] - middle, -half, half) - thing.centre[:2]
        left, ground = np.linalg.norm(way), thing.low[2]
        ahead, offset = way / max(left, 1e-6), hand[:2] - thing.centre[:2]
        height = ground + FINGERTIP + TIPS
        yaw, yaw_now = hand_yaw(np.array([-ahead[1], ahead[0]])), yaw_of(scene.turn)
        askew = abs((yaw_now - yaw + np.pi / 2) % np.pi - np.pi / 2)
        turn = turned(yaw_now if askew < ASKEW and hand[2] < height + HIGH else yaw + self._travel.style.yaw_rad)
        pushing = hand[2] < height + LOW and np.linalg.norm(offset) < OUTSIDE * self._radius

        if left < (THERE if pushing else NEAR):
            rise = ground + BACK + HOVER - hand[2]
            return Intent("release", np.array([0.0, 0.0, rise]), 1.0, turn, done=bool(hand[2] > ground + BACK))
        if pushing:
            aside = offset - offset @ ahead * ahead
            down = min(height - hand[2], 0.0) - PRESS * STEP
            return Intent("carry", np.array([*(STEP * ahead - 0.5 * aside), down]), 1.0, turn)
        point = np.array([*(thing.centre[:2] + INSIDE * self._radius * ahead), height])
        over = self._travel.over(scene, self._thing, point)
        ready = scene.width < EMPTY_WIDTH
        move = reach_down(scene, point, thing.high[2], over, turn, self._travel.style, ready)
        return Intent("reach", move, 1.0, turn)
