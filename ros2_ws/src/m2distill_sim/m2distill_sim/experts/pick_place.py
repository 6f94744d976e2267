"""Pick an object up and place it.

The hand slows down before every target, lifts slowly at first, waits while the fingers open, and points down.
Decisions have hysteresis: closing begins within 1 cm of the grasp and is given up only 3.5 cm away, so that a learner's
small errors do not make it oscillate. Lengths in m.
"""

import numpy as np

from m2distill_sim.experts.grasp import ChooseGrasp, Grasp, PlaceTarget, clearance_deficit
from m2distill_sim.experts.motion import (
    ALIGNED,
    NOT_ALIGNED,
    OPEN_WIDTH,
    PREGRASP_HEIGHT,
    Intent,
    Transit,
    approach_from_above,
    yaw_of,
)
from m2distill_sim.experts.scene import BoundingBox, Scene, distance, ramp

GRASP_LOST = 0.035  # distance from the grasp at which a closing hand has missed
GRASP_TOLERANCE = 0.006  # fingers wider than the object by less than this hold it
LIFT, CARRY, LIFTED = 0.006, 0.045, 0.04  # largest move of a step: on the surface, and with the underside this high
RIM_CLEARANCE = 0.025  # of the object's underside over the rim while it is carried
CAUGHT, STANDING = (
    0.005,
    0.008,
)  # sideways offset of an object caught on a finger; height over the floor of a standing one
DOWN, ASIDE = 0.03, 0.005  # moves down of an open hand until the object stands, and while the hand moves aside
RETREAT = 0.12  # height of the hand over the rim at which the skill is done


class Basket:
    """A basket into which objects are dropped."""

    RELEASE_OPENING = OPEN_WIDTH  # by which fingers open before the hand retreats: completely
    PLACE_DEPTH = 0.03
    TOLERANCE = 0.02
    INSIDE = 0.06  # half width of the basket's containing region, LIBERO's

    def __init__(self, name: str):
        self.name = name

    def target(self, scene: Scene, name: str) -> PlaceTarget:
        """Return where to release the object `name`."""
        basket = scene.bounds(self.name)
        return PlaceTarget(basket.centre[:2], basket.high[2], self.PLACE_DEPTH, self.TOLERANCE)

    def may_release(self, scene: Scene, box: BoundingBox, target: PlaceTarget, grasp: Grasp) -> bool:
        """Return True if the object may be released, or has been."""
        off_centre = distance(target.point - box.centre[:2])
        delivered = off_centre < self.INSIDE and box.high[2] < target.rim + self.PLACE_DEPTH
        return bool(delivered or (off_centre < self.TOLERANCE and box.low[2] < target.rim - self.PLACE_DEPTH / 2))

    def free_caught_object(self, scene: Scene, name: str) -> np.ndarray | None:
        """Return the move (3,) of an open hand on whose finger an object has caught by an edge.

        The hand moves down until the object stands, then aside. None if the object has fallen, or is in the middle
        between the fingers.
        """
        box, middle = scene.bounds(name), scene.bounds(self.name).centre[:2]
        aside = box.centre[1] - scene.hand[1]
        if box.high[2] < scene.hand[2] or abs(aside) < CAUGHT:
            return None
        floor = scene.max_height(middle, 0.0, (-0.02, -0.02), (0.02, 0.02), name)
        return np.array([0.0, aside, -ASIDE]) if box.low[2] < floor + STANDING else np.array([0.0, 0.0, -DOWN])


class Surface:
    """An object, or a region of a fixture, on or in which objects are placed. Methods as in Basket."""

    RELEASE_OPENING = 0.03
    RELEASE_HEIGHT = 0.010  # of the object's underside over its support
    TOLERANCE, RESTING = 0.012, 0.026  # sideways error at which it may be released, and which is accepted afterwards

    def __init__(self, name: str):
        self.name = name

    def target(self, scene: Scene, name: str) -> PlaceTarget:
        box, centre = scene.bounds(name), scene.free_centre(self.name, name)
        half = max(box.high[:2] - box.low[:2]) / 2
        surface = scene.max_height(centre, 0.0, (-0.02, -0.02), (0.02, 0.02), name)
        rim = max(surface, scene.max_height(centre, 0.0, (-half, -half), (half, half), name))
        move = np.array([*centre, surface]) - [*box.centre[:2], box.low[2]]
        blocked = clearance_deficit(scene, scene.hand + move, yaw_of(scene.orientation), scene.gripper_width, name)
        return PlaceTarget(centre, rim, rim - surface - blocked, self.TOLERANCE)

    def may_release(self, scene: Scene, box: BoundingBox, target: PlaceTarget, grasp: Grasp) -> bool:
        off_centre = distance(target.point - box.centre[:2])
        if scene.gripper_width > grasp.width + GRASP_TOLERANCE:
            return bool(off_centre < self.RESTING and box.low[2] < target.rim + self.RELEASE_HEIGHT)
        return bool(off_centre < self.TOLERANCE and box.low[2] < target.rim - target.depth + self.RELEASE_HEIGHT)

    def free_caught_object(self, scene: Scene, name: str) -> None:
        """Return None: nothing falls onto a surface."""


class PickAndPlace:
    """Moves the object `name` to a place; done once the hand has released it and retreated."""

    def __init__(self, name: str, place: Basket | Surface, transit: Transit, choose_grasp: ChooseGrasp):
        self._name, self._place, self._transit, self._choose_grasp = name, place, transit, choose_grasp

    def intend(self, scene: Scene) -> Intent:
        box, target = scene.bounds(self._name), self._place.target(scene, self._name)
        grasp = self._choose_grasp(scene, self._name, target)
        if self._place.may_release(scene, box, target, grasp):
            return self._release(scene, target, grasp)
        transit = self._transit
        fingers_open = scene.gripper_width > OPEN_WIDTH
        point = grasp.approach if fingers_open else grasp.point
        error = point - scene.hand
        sideways = distance(error[:2])
        reached = max(sideways, abs(error[2])) < (ALIGNED if fingers_open else GRASP_LOST)
        if not reached or scene.gripper_width < grasp.min_width:
            profile = transit.profile(scene, self._name, point)
            move = approach_from_above(
                scene, point, box.high[2], profile, grasp.orientation, transit.style, fingers_open
            )
            return Intent("reach" if sideways > NOT_ALIGNED else "grasp", move, -1.0, grasp.orientation)
        if scene.gripper_width >= grasp.width + GRASP_TOLERANCE:
            return Intent("grasp", error, 1.0, grasp.orientation)
        return Intent("carry", self._carry(scene, box, target), 1.0, grasp.orientation)

    def _release(self, scene: Scene, target: PlaceTarget, grasp: Grasp) -> Intent:
        """Open the fingers, free an object that has caught on one, then retreat upwards."""
        orientation, height = self._transit.release_orientation(scene), scene.hand[2]
        released = scene.gripper_width > min(OPEN_WIDTH, grasp.width + self._place.RELEASE_OPENING)
        if released and (move := self._place.free_caught_object(scene, self._name)) is not None:
            return Intent("release", move, -1.0, orientation)
        rise = target.rim + RETREAT + PREGRASP_HEIGHT - height if released else 0.0
        done = bool(released and height > target.rim + RETREAT)
        return Intent("release", np.array([0.0, 0.0, rise]), -1.0, orientation, done)

    def _carry(self, scene: Scene, box: BoundingBox, target: PlaceTarget) -> np.ndarray:
        """Return the move (3,): up, over the obstacles on the way, to the centre of the place, then down.

        The object's own bounding box decides when. The lift begins so slowly that the fingers tighten meanwhile.
        Whether they are tight enough cannot be observed, so no decision may depend on it.
        """
        transit, underside = self._transit, box.low[2]
        off_centre = distance(target.point - box.centre[:2])
        over = ramp(off_centre, target.tolerance, 2 * target.tolerance)  # 0 over the centre, 1 elsewhere
        clear = transit.carry_height(scene, self._name, box, target.point, target.rim)
        higher = max(clear - target.rim, 0.0) + transit.style.lift_m
        escape = transit.escape_move(scene, self._name, box)
        if escape is not None:
            return np.array([*escape, transit.support_height(scene, self._name) + LIFT - underside])
        rise = target.rim - target.depth + over * (higher + target.depth + RIM_CLEARANCE) - underside
        advance = 1.0 if off_centre < 2 * target.tolerance else ramp(underside, clear - transit.SLACK, clear)
        most = LIFT + (CARRY - LIFT) * ramp(underside - transit.support_height(scene, self._name), 0.0, LIFTED)
        return np.array([*(target.point - box.centre[:2]) * advance, min(rise, most)])
