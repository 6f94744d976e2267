"""Pushing a flat thing over the table: closed fingers press lightly on its middle and take it along.

Fingertips hold better than a plate slides. Against its rim they would climb it, and tip over a light plate.
"""

import numpy as np

from m2distill_sim.experts.grasp import EMPTY_WIDTH, Rim
from m2distill_sim.experts.motion import FINGERTIP, HOVER, Intent, hand_yaw, reach_down, turned, yaw_of
from m2distill_sim.experts.scene import Extent, Scene, ramp

OUTSIDE = 0.5  # of the radius: fingers that have slid this far off the middle begin anew
FLOOR = 0.002  # height of the thing's floor over the table
OVER, ON = 0.008, 0.001  # height over that at which the fingers may have come down, and at which they push with all
PRESS = 0.012  # m the hand is sent into the floor
ASKEW, HIGH = np.radians(60.0), 0.06  # error of the hand's yaw that is left alone, at this height over that
STEP = 0.045  # m the hand is sent ahead of itself
AROUND = 2.0  # of the room that something in the way lacks: how far aside to push
DEEP = 0.4  # of the region's half width: how near to its middle the thing shall come
THERE, NEAR = 0.010, 0.018  # from there when the pushing ends, and when it begins again
BACK = 0.12  # height of the hand over the table at which it has drawn back


class Push:
    """Pushes an object to a region; done once it is there and the hand has risen."""

    def __init__(self, scene: Scene, thing: str, region: str, travel):
        self._thing, self._region, self._travel = thing, region, travel
        self._radius = Rim(scene.outline(thing)).radius
        self._others = [name for name in scene.names if name != thing]

    def intend(self, scene: Scene) -> Intent:
        thing, hand = scene.extent(self._thing), scene.hand
        middle, half = scene.place(self._region), DEEP * scene.model.site(self._region).size[:2]
        way = middle + np.clip(thing.centre[:2] - middle, -half, half) - thing.centre[:2]
        left, ground = np.linalg.norm(way), thing.low[2]
        offset, ahead = hand[:2] - thing.centre[:2], self._around(scene, thing, way)
        height = ground + FLOOR + FINGERTIP
        yaw, yaw_now = hand_yaw(np.array([-way[1], way[0]])), yaw_of(scene.turn)
        askew = abs((yaw_now - yaw + np.pi / 2) % np.pi - np.pi / 2)
        turn = turned(yaw_now if askew < ASKEW and hand[2] < height + HIGH else yaw + self._travel.style.yaw_rad)
        pushing = hand[2] < height + OVER and np.linalg.norm(offset) < OUTSIDE * self._radius

        if left < (THERE if pushing else NEAR):
            rise = ground + BACK + HOVER - hand[2]
            return Intent("release", np.array([0.0, 0.0, rise]), 1.0, turn, done=bool(hand[2] > ground + BACK))
        if pushing:
            go = ramp(hand[2] - height, OVER, ON) * STEP * ahead
            return Intent("carry", np.array([*go, height - PRESS - hand[2]]), 1.0, turn)
        point = np.array([*thing.centre[:2], height])
        over = self._travel.over(scene, self._thing, point)
        ready = scene.width < EMPTY_WIDTH
        move = reach_down(scene, point, thing.high[2], over, turn, self._travel.style, ready)
        return Intent("reach", move, 1.0, turn)

    def _around(self, scene: Scene, thing: Extent, way: np.ndarray) -> np.ndarray:
        """(2,) direction in which to push for a way to go (2,): aside of what stands in it, which would be pushed along
        and come to lie between the thing and its place."""
        left = np.linalg.norm(way)
        ahead = way / max(left, 1e-6)
        beside = np.array([-ahead[1], ahead[0]])
        aside = 0.0
        for other in self._others:
            extent = scene.extent(other)
            room = self._radius + max(extent.high[:2] - extent.low[:2]) / 2
            to = extent.centre[:2] - thing.centre[:2]
            across = to @ beside
            if 0.0 < to @ ahead < left and abs(across) < room:
                aside -= np.copysign(room - abs(across), across)
        direction = ahead + AROUND * aside / max(left, NEAR) * beside
        return direction / max(np.linalg.norm(direction), 1e-6)
