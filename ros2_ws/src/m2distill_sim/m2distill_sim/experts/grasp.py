"""Where and how a hand that points down takes hold of a thing: across its middle, or by its rim."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from m2distill_sim.experts.motion import (
    FINGERTIP,
    OPEN_WIDTH,
    PALM,
    PALM_BACK,
    PALM_FRONT,
    PALM_SIDE,
    POINTING_DOWN,
    Style,
    hand_yaw,
    turned,
    yaw_of,
)
from m2distill_sim.experts.scene import Scene

MAX_SHIFT = 0.02  # of the grasp along the object, to keep the palm off a taller neighbour
WIDEST = 0.07  # a thing between the fingers
EMPTY_WIDTH = 0.012  # fingers closer together than this hold nothing
RIM_WIDTH = 0.008  # of a bowl's sloping wall between the fingers
RIM_DEPTH = 0.016  # of the hand below a rim
RIM_INSET = 0.02  # of the open hand inwards, where a wall leaves the outer finger no room
FINGER = (0.022, 0.012)  # of one finger: thickness across, half width along
EASY_REACH = 0.70  # sideways from the robot's base; a straight arm is hard to bend again
ROOMS = ((0.0, 100.0), (0.012, 20.0))  # around the palm, and what it costs to have less, per m the hand is too low
SIDES = np.arange(16) * np.pi / 8  # of a rim, tried for a grasp
AT_RIM = 0.06  # a hand this near to a rim keeps to its side of it


@dataclass(frozen=True)
class Grasp:
    point: np.ndarray  # (3,) where the hand closes
    approach: np.ndarray  # (3,) where the open hand goes down
    turn: Rotation  # of the hand
    width: float  # of what comes between the fingers
    empty: float  # fingers closer together than this hold nothing


def middle_grasp(scene: Scene, name: str, ground: float, neighbours) -> Grasp:
    """Across the object's middle along y, as low as palm and ground allow, clear of taller neighbours (names)."""
    thing = scene.extent(name)
    point = thing.centre
    point[2] = max(point[2], thing.high[2] - PALM, ground + FINGERTIP)
    least, most = point[0] - MAX_SHIFT, point[0] + MAX_SHIFT
    for other in map(scene.extent, neighbours):
        beside = other.low[1] < point[1] + PALM_SIDE and other.high[1] > point[1] - PALM_SIDE
        if beside and other.high[2] > point[2] + PALM:
            if other.centre[0] > thing.centre[0]:
                point[0] = max(min(point[0], other.low[0] - PALM_FRONT), least)
            else:
                point[0] = min(max(point[0], other.high[0] + PALM_BACK), most)
    return Grasp(point, point, POINTING_DOWN, thing.high[1] - thing.low[1], EMPTY_WIDTH)


def top_grasp(scene: Scene, name: str, spot, style: Style) -> Grasp:
    """Like middle_grasp, of a thing on a table that may be narrower at the top."""
    ground = scene.extent(name).low[2]
    grasp = middle_grasp(scene, name, ground, [])
    point = grasp.point + np.array([style.offset_m, 0.0, 0.0])
    width = scene.width_of(name, 0.0, point[2] - FINGERTIP, point[2] + FINGERTIP)
    return Grasp(point, point, turned(0.5 * style.yaw_rad), width, 0.5 * width)


class Rim:
    """The rim of a round hollow thing, in its own frame."""

    def __init__(self, outline: np.ndarray):
        self.height = outline[:, 2].max()
        upper = outline[outline[:, 2] > self.height - 0.008]
        self.centre = (upper[:, :2].min(axis=0) + upper[:, :2].max(axis=0)) / 2
        radii = np.linalg.norm(upper[:, :2] - self.centre, axis=1)
        self.radius = radii.mean()

    def at(self, scene: Scene, name: str, side: float) -> np.ndarray:
        """(3,) where the hand takes the rim on the side of this azimuth in the world."""
        position, rotation = scene.pose(name)
        outwards = rotation[:2, :2].T @ [np.cos(side), np.sin(side)]
        outwards /= np.linalg.norm(outwards)
        point = rotation @ [*(self.centre + self.radius * outwards), self.height] + position
        return point - [0.0, 0.0, RIM_DEPTH]


def rim_grasp(scene: Scene, name: str, spot, rim: Rim, style: Style) -> Grasp:
    """On the side of the rim where hand and fingers have room, here and at the spot where the thing will
    be let go, preferring to turn the hand little. A hand at the rim keeps to its side of it."""
    thing = scene.extent(name)
    side_now = np.arctan2(*(scene.hand - thing.centre)[1::-1])
    near = np.linalg.norm(scene.hand - rim.at(scene, name, side_now)) < AT_RIM
    if near and scene.width < OPEN_WIDTH:
        point = rim.at(scene, name, side_now)
        return Grasp(point, point, turned(yaw_of(scene.turn)), RIM_WIDTH, 0.0)
    move = [*spot.point, spot.rim - spot.depth] - np.array([*thing.centre[:2], thing.low[2]])
    best = (np.inf,)
    for side in SIDES:
        point, outwards = rim.at(scene, name, side), np.array([np.cos(side), np.sin(side), 0.0])
        yaw = hand_yaw(outwards)
        stretched = max(0.0, np.linalg.norm(point[:2] - scene.base) - EASY_REACH)
        cost = 0.3 * abs(yaw) + 5.0 * stretched + 2.0 * near * abs((side - side_now + np.pi) % (2 * np.pi) - np.pi)
        if cost >= best[0]:
            continue
        inset = RIM_INSET if too_low(scene, point, yaw, OPEN_WIDTH, name) > 0.0 else 0.0
        for room, weight in ROOMS:
            cost += weight * (
                too_low(scene, point - inset * outwards, yaw, OPEN_WIDTH, name, room)
                + too_low(scene, point + move, yaw, RIM_WIDTH, name, room)
            )
        best = min(best, (cost, point, point - inset * outwards, yaw), key=lambda choice: choice[0])
    _, point, approach, yaw = best
    return Grasp(point, approach, turned(yaw + style.yaw_rad), RIM_WIDTH, 0.0)


def too_low(scene: Scene, point, yaw: float, spread: float, ignore: str, room: float = 0.0) -> float:
    """By how much a hand at `point` would have to be higher, for palm and fingers to stand in nothing but `ignore`, nor
    nearer to its side than `room`."""
    thickness, half = FINGER
    palm = (
        scene.height(
            point[:2], yaw, (-PALM_BACK - room, -PALM_SIDE - room), (PALM_FRONT + room, PALM_SIDE + room), ignore
        )
        - PALM
    )
    reach = spread / 2 + thickness
    tips = scene.height(point[:2], yaw, (-half, -reach), (half, reach), ignore) + FINGERTIP
    return max(0.0, palm + 0.002 - point[2], tips + 0.002 - point[2])
