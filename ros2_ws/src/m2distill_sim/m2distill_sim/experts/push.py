"""Push a flat object over the table: closed fingers press lightly on its middle and take it along.

Friction at the fingertips exceeds that under a plate. Against the rim the fingers would climb, and tip a light plate.
Lengths in m.
"""

import numpy as np

from m2distill_sim.experts.grasp import EMPTY_WIDTH, Rim
from m2distill_sim.experts.motion import (
    FINGERTIP,
    PREGRASP_HEIGHT,
    Intent,
    Transit,
    approach_from_above,
    hand_at_yaw,
    hand_yaw,
    yaw_of,
)
from m2distill_sim.experts.scene import BoundingBox, Scene, distance, ramp

OUTSIDE = 0.5  # of the radius: fingers that have slid this far off the middle start again
FLOOR = 0.002  # height of the object's floor over the table
OVER, ON = 0.008, 0.001  # height over the floor at which fingers may have descended, and at which they push fully
PRESS = 0.012  # commanded depth of the hand in the floor
ASKEW, HIGH = np.radians(60.0), 0.06  # yaw error that is not corrected below this height over the floor
STEP = 0.045  # commanded lead of the hand
AROUND = 2.0  # sideways correction per m of clearance that an obstacle lacks
DEEP = 0.4  # of the region's half width: how near to its middle the object must come
THERE, NEAR = 0.010, 0.018  # remaining distance at which pushing ends, and at which it begins again
BACK = 0.12  # height of the hand over the table at which it has retreated


class Push:
    """Pushes an object to a region; done once the object is there and the hand has risen."""

    def __init__(self, scene: Scene, name: str, region: str, transit: Transit):
        self._name, self._region, self._transit = name, region, transit
        self._radius = Rim(scene.corner_points(name)).radius
        self._others = [other for other in scene.names if other != name]

    def intend(self, scene: Scene) -> Intent:
        box, hand = scene.bounds(self._name), scene.hand
        middle, half = scene.centre_of(self._region), DEEP * scene.model.site(self._region).size[:2]
        way = middle + np.clip(box.centre[:2] - middle, -half, half) - box.centre[:2]
        left, ground = np.linalg.norm(way), box.low[2]
        offset, ahead = hand[:2] - box.centre[:2], self._direction(scene, box, way)
        height = ground + FLOOR + FINGERTIP
        yaw, yaw_now = hand_yaw(np.array([-way[1], way[0]])), yaw_of(scene.orientation)
        askew = abs((yaw_now - yaw + np.pi / 2) % np.pi - np.pi / 2)
        keep_yaw = askew < ASKEW and hand[2] < height + HIGH
        orientation = hand_at_yaw(yaw_now if keep_yaw else yaw + self._transit.style.yaw_rad)
        pushing = hand[2] < height + OVER and np.linalg.norm(offset) < OUTSIDE * self._radius

        if left < (THERE if pushing else NEAR):
            rise = ground + BACK + PREGRASP_HEIGHT - hand[2]
            return Intent("release", np.array([0.0, 0.0, rise]), 1.0, orientation, done=bool(hand[2] > ground + BACK))
        if pushing:
            lead = ramp(hand[2] - height, OVER, ON) * STEP * ahead
            return Intent("carry", np.array([*lead, height - PRESS - hand[2]]), 1.0, orientation)
        point = np.array([*box.centre[:2], height])
        profile = self._transit.profile(scene, self._name, point)
        ready = scene.gripper_width < EMPTY_WIDTH
        move = approach_from_above(scene, point, box.high[2], profile, orientation, self._transit.style, ready)
        return Intent("reach", move, 1.0, orientation)

    def _direction(self, scene: Scene, box: BoundingBox, way: np.ndarray) -> np.ndarray:
        """Return the direction (2,) in which to push for a remaining way (2,), around obstacles.

        An obstacle on the way would be pushed along and end up between the object and its target.
        """
        left = distance(way)
        ahead = way / max(left, 1e-6)
        beside = np.array([-ahead[1], ahead[0]])
        aside = 0.0
        for other in self._others:
            obstacle = scene.bounds(other)
            clearance = self._radius + max(obstacle.high[:2] - obstacle.low[:2]) / 2
            to = obstacle.centre[:2] - box.centre[:2]
            across = to @ beside
            if 0.0 < to @ ahead < left and abs(across) < clearance:
                aside -= np.copysign(clearance - abs(across), across)
        direction = ahead + AROUND * aside / max(left, NEAR) * beside
        return direction / max(distance(direction), 1e-6)
