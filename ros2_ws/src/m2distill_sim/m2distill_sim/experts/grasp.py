"""Grasps of a hand that points down: across an object's middle, or at its rim. Lengths in m."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

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
    hand_at_yaw,
    hand_yaw,
    yaw_of,
)
from m2distill_sim.experts.scene import Scene

MAX_SHIFT = 0.02  # of the grasp along the object, to keep the palm off a taller neighbour
MAX_OBJECT_WIDTH = 0.07  # between the fingers
EMPTY_WIDTH = 0.012  # gripper width below which the gripper holds nothing
RIM_WIDTH = 0.008  # of a bowl's sloping wall between the fingers
RIM_DEPTH = 0.016  # of the hand below a rim
RIM_INSET = 0.02  # of the open hand inwards, where a wall leaves the outer finger no space
FINGER_THICKNESS, FINGER_HALF_WIDTH = 0.022, 0.012
EASY_REACH = 0.70  # sideways from the robot's base; a straight arm is hard to bend again
# Clearance around the palm, and its cost per m by which the hand is too low for it.
PALM_CLEARANCES = ((0.0, 100.0), (0.012, 20.0))
RIM_AZIMUTHS = np.arange(16) * np.pi / 8  # candidates for a grasp at a rim, rad
AT_RIM = 0.06  # a hand nearer than this to a rim stays on its side of it


@dataclass(frozen=True)
class Grasp:
    """Grasp of one object in its current pose."""

    point: np.ndarray  # (3,) where the hand closes
    approach: np.ndarray  # (3,) where the open hand descends
    orientation: Rotation  # of the hand
    width: float  # of the object between the fingers
    min_width: float  # gripper width below which the gripper holds nothing


@dataclass(frozen=True)
class PlaceTarget:
    """Where to release an object, in the current scene."""

    point: np.ndarray  # (2,)
    rim: float  # height to clear
    depth: float  # of the object's underside below the rim when it is released
    tolerance: float  # sideways error at which it may be released


class ChooseGrasp(Protocol):
    """Function that chooses the grasp of an object that is to be placed at `target`."""

    def __call__(self, scene: Scene, name: str, target: PlaceTarget) -> Grasp: ...


def middle_grasp(scene: Scene, name: str, ground: float, neighbours: Iterable[str]) -> Grasp:
    """Return a grasp across the object's middle along y, as low as palm and ground allow.

    Args:
        scene: the scene.
        name: of the object.
        ground: height of the surface under it.
        neighbours: names of objects that the palm must not touch.
    """
    box = scene.bounds(name)
    point = box.centre
    point[2] = max(point[2], box.high[2] - PALM, ground + FINGERTIP)
    least, most = point[0] - MAX_SHIFT, point[0] + MAX_SHIFT
    for other in map(scene.bounds, neighbours):
        beside = other.low[1] < point[1] + PALM_SIDE and other.high[1] > point[1] - PALM_SIDE
        if beside and other.high[2] > point[2] + PALM:
            if other.centre[0] > box.centre[0]:
                point[0] = max(min(point[0], other.low[0] - PALM_FRONT), least)
            else:
                point[0] = min(max(point[0], other.high[0] + PALM_BACK), most)
    return Grasp(point, point, POINTING_DOWN, box.high[1] - box.low[1], EMPTY_WIDTH)


def top_grasp(scene: Scene, name: str, target: PlaceTarget, style: Style) -> Grasp:
    """Return a grasp like middle_grasp's for an object on a table that may be narrower at the top."""
    ground = scene.bounds(name).low[2]
    grasp = middle_grasp(scene, name, ground, [])
    point = grasp.point + np.array([style.offset_m, 0.0, 0.0])
    width = scene.object_width(name, 0.0, point[2] - FINGERTIP, point[2] + FINGERTIP)
    return Grasp(point, point, hand_at_yaw(0.5 * style.yaw_rad), width, 0.5 * width)


class Rim:
    """Rim of a round hollow object, in the object's own frame."""

    def __init__(self, corner_points: np.ndarray):
        self.height = corner_points[:, 2].max()
        upper = corner_points[corner_points[:, 2] > self.height - 0.008]
        self.centre = (upper[:, :2].min(axis=0) + upper[:, :2].max(axis=0)) / 2
        radii = np.linalg.norm(upper[:, :2] - self.centre, axis=1)
        self.radius = radii.mean()

    def grasp_point(self, scene: Scene, name: str, azimuth: float) -> np.ndarray:
        """Return the point (3,) of the hand that grasps the rim at an azimuth in the world frame."""
        position, rotation = scene.pose(name)
        outwards = rotation[:2, :2].T @ [np.cos(azimuth), np.sin(azimuth)]
        outwards /= np.linalg.norm(outwards)
        point = rotation @ [*(self.centre + self.radius * outwards), self.height] + position
        return point - [0.0, 0.0, RIM_DEPTH]


def rim_grasp(scene: Scene, name: str, target: PlaceTarget, rim: Rim, style: Style) -> Grasp:
    """Return a grasp at the azimuth of the rim where hand and fingers have space, now and at the target.

    Small rotations of the hand are preferred. A hand that is at the rim stays on its side of it.
    """
    box = scene.bounds(name)
    azimuth_now = np.arctan2(*(scene.hand - box.centre)[1::-1])
    near = np.linalg.norm(scene.hand - rim.grasp_point(scene, name, azimuth_now)) < AT_RIM
    if near and scene.gripper_width < OPEN_WIDTH:
        point = rim.grasp_point(scene, name, azimuth_now)
        return Grasp(point, point, hand_at_yaw(yaw_of(scene.orientation)), RIM_WIDTH, 0.0)
    move = [*target.point, target.rim - target.depth] - np.array([*box.centre[:2], box.low[2]])
    best_cost, best = np.inf, None
    for azimuth in RIM_AZIMUTHS:
        point = rim.grasp_point(scene, name, azimuth)
        outwards = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
        yaw = hand_yaw(outwards)
        stretched = max(0.0, np.linalg.norm(point[:2] - scene.base) - EASY_REACH)
        switched = near * abs((azimuth - azimuth_now + np.pi) % (2 * np.pi) - np.pi)
        cost = 0.3 * abs(yaw) + 5.0 * stretched + 2.0 * switched
        if cost >= best_cost:
            continue
        inset = RIM_INSET if clearance_deficit(scene, point, yaw, OPEN_WIDTH, name) > 0.0 else 0.0
        for clearance, weight in PALM_CLEARANCES:
            cost += weight * (
                clearance_deficit(scene, point - inset * outwards, yaw, OPEN_WIDTH, name, clearance)
                + clearance_deficit(scene, point + move, yaw, RIM_WIDTH, name, clearance)
            )
        if cost < best_cost:
            best_cost, best = cost, (point, point - inset * outwards, yaw)
    if best is None:
        raise ValueError(f"{name} has no rim grasp with a finite cost")
    point, approach, yaw = best
    return Grasp(point, approach, hand_at_yaw(yaw + style.yaw_rad), RIM_WIDTH, 0.0)


def clearance_deficit(
    scene: Scene, point: np.ndarray, yaw: float, width: float, ignore: str, clearance: float = 0.0
) -> float:
    """Return the height by which a hand is too low for palm and fingers to be free of obstacles, 0 if they are free.

    Args:
        scene: the scene.
        point: (3,) of the hand.
        yaw: of the hand, rad.
        width: of the gripper.
        ignore: name of an object that does not count.
        clearance: sideways, between palm and obstacles.
    """
    palm = (
        scene.max_height(
            point[:2],
            yaw,
            (-PALM_BACK - clearance, -PALM_SIDE - clearance),
            (PALM_FRONT + clearance, PALM_SIDE + clearance),
            ignore,
        )
        - PALM
    )
    reach, half = width / 2 + FINGER_THICKNESS, FINGER_HALF_WIDTH
    tips = scene.max_height(point[:2], yaw, (-half, -reach), (half, reach), ignore) + FINGERTIP
    return max(0.0, palm + 0.002 - point[2], tips + 0.002 - point[2])
