"""Picking one object up and letting it go somewhere else.

It slows down before every goal, lifts slowly at first, waits while the fingers open, and keeps the hand pointing down.
Decisions are hard to reverse: closing begins within 1 cm of the grasp, but is given up only 3.5 cm away, so a learner's
small errors do not make it dither.
"""

from dataclasses import dataclass

import numpy as np

from m2distill_sim.experts.grasp import Grasp, too_low
from m2distill_sim.experts.motion import ALIGNED, HOVER, NOT_ALIGNED, OPEN_WIDTH, Intent, reach_down, yaw_of
from m2distill_sim.experts.scene import Extent, Scene, ramp

SLIPPED = 0.035  # a closing hand further than this from the grasp has missed
SNUG = 0.006  # fingers not wider than the object by more than this hold it
LIFT, CARRY, LIFTED = 0.006, 0.045, 0.04  # largest move of a step: on the floor, and with the underside this high
RIM_CLEARANCE = 0.025  # of the object's underside over the basket's rim while it is carried
CAUGHT, STANDING = 0.005, 0.008  # how far aside of the hand a thing has caught, and how low over the floor it stands
DOWN, ASIDE = 0.03, 0.005  # moves down of an open hand until the thing stands, and while it goes aside
RETREAT = 0.12  # height of the hand over the rim at which the episode is over


@dataclass(frozen=True)
class Spot:
    """Where to let a thing go, now."""

    point: np.ndarray  # (2,)
    rim: float  # height to pass over
    depth: float  # of the thing's underside below it when it is let go
    centred: float  # sideways error at which it may be let go


class Basket:
    """A basket to drop things into."""

    ROOM = OPEN_WIDTH  # by which fingers open before the hand draws back: all the way
    PLACE_DEPTH = 0.03
    CENTRED = 0.02
    INSIDE = 0.06  # half width of the basket's containing region, LIBERO's

    def __init__(self, name: str):
        self.name = name

    def spot(self, scene: Scene, thing: str) -> Spot:
        basket = scene.extent(self.name)
        return Spot(basket.centre[:2], basket.high[2], self.PLACE_DEPTH, self.CENTRED)

    def holds(self, scene: Scene, thing: Extent, spot: Spot, grasp: Grasp) -> bool:
        """Whether the thing may be let go, or has been."""
        off_centre = np.linalg.norm(spot.point - thing.centre[:2])
        delivered = off_centre < self.INSIDE and thing.high[2] < spot.rim + self.PLACE_DEPTH
        return delivered or (off_centre < self.CENTRED and thing.low[2] < spot.rim - self.PLACE_DEPTH / 2)

    def off_finger(self, scene: Scene, name: str) -> np.ndarray | None:
        """(3,) how to move an open hand off a thing that should have fallen and has caught on a finger by an edge: down
        until it stands, then aside. None where it has fallen, or is in the middle between the fingers."""
        thing, middle = scene.extent(name), scene.extent(self.name).centre[:2]
        aside = thing.centre[1] - scene.hand[1]
        if thing.high[2] < scene.hand[2] or abs(aside) < CAUGHT:
            return None
        floor = scene.height(middle, 0.0, (-0.02, -0.02), (0.02, 0.02), name)
        return np.array([0.0, aside, -ASIDE]) if thing.low[2] < floor + STANDING else np.array([0.0, 0.0, -DOWN])


class Surface:
    """An object, or a region of a fixture, to set things down on or in."""

    ROOM = 0.03
    LET_GO = 0.010  # height of its underside over where it will lie
    CENTRED, RESTING = 0.012, 0.026  # sideways error at which it may be let go, and which is left alone afterwards

    def __init__(self, name: str):
        self.name = name

    def spot(self, scene: Scene, thing: str) -> Spot:
        extent, centre = scene.extent(thing), scene.room(self.name, thing)
        half = max(extent.high[:2] - extent.low[:2]) / 2
        surface = scene.height(centre, 0.0, (-0.02, -0.02), (0.02, 0.02), thing)
        rim = max(surface, scene.height(centre, 0.0, (-half, -half), (half, half), thing))
        move = np.array([*centre, surface]) - [*extent.centre[:2], extent.low[2]]
        blocked = too_low(scene, scene.hand + move, yaw_of(scene.turn), scene.width, thing)
        return Spot(centre, rim, rim - surface - blocked, self.CENTRED)

    def holds(self, scene: Scene, thing: Extent, spot: Spot, grasp: Grasp) -> bool:
        off_centre = np.linalg.norm(spot.point - thing.centre[:2])
        if scene.width > grasp.width + SNUG:
            return off_centre < self.RESTING and thing.low[2] < spot.rim + self.LET_GO
        return off_centre < self.CENTRED and thing.low[2] < spot.rim - spot.depth + self.LET_GO

    def off_finger(self, scene: Scene, name: str) -> None:
        """Nothing has to fall."""


class PickAndPlace:
    """Moves the object `thing` to a place; finished once the hand has let go and drawn back."""

    def __init__(self, thing: str, place, travel, choose_grasp):
        self._thing, self._place, self._travel, self._choose_grasp = thing, place, travel, choose_grasp

    def intend(self, scene: Scene) -> Intent:
        travel, hand = self._travel, scene.hand
        thing, spot = scene.extent(self._thing), self._place.spot(scene, self._thing)
        grasp = self._choose_grasp(scene, self._thing, spot)
        if self._place.holds(scene, thing, spot, grasp):
            has_let_go = scene.width > min(OPEN_WIDTH, grasp.width + self._place.ROOM)
            if has_let_go and (move := self._place.off_finger(scene, self._thing)) is not None:
                return Intent("release", move, -1.0, travel.level(scene))
            rise = spot.rim + RETREAT + HOVER - hand[2] if has_let_go else 0.0
            return Intent(
                "release",
                np.array([0.0, 0.0, rise]),
                -1.0,
                travel.level(scene),
                done=bool(has_let_go and hand[2] > spot.rim + RETREAT),
            )

        fingers_open = scene.width > OPEN_WIDTH
        aim = grasp.approach if fingers_open else grasp.point
        error = aim - hand
        sideways = np.linalg.norm(error[:2])
        reached = max(sideways, abs(error[2])) < (ALIGNED if fingers_open else SLIPPED)
        if not reached or scene.width < grasp.empty:
            over = travel.over(scene, self._thing, aim)
            return Intent(
                "reach" if sideways > NOT_ALIGNED else "grasp",
                reach_down(scene, aim, thing.high[2], over, grasp.turn, travel.style, fingers_open),
                -1.0,
                grasp.turn,
            )
        if scene.width >= grasp.width + SNUG:
            return Intent("grasp", error, 1.0, grasp.turn)
        return Intent("carry", self._carry(scene, thing, spot), 1.0, grasp.turn)

    def _carry(self, scene: Scene, thing: Extent, spot: Spot) -> np.ndarray:
        """Up, over what is on the way, to the middle of the place, down; the object's own bounds say when.

        The lift begins so slowly that the fingers grow firm meanwhile: when they are firm enough cannot be seen, so
        nothing may hang on it.
        """
        travel, underside = self._travel, thing.low[2]
        off_centre = np.linalg.norm(spot.point - thing.centre[:2])
        over = ramp(off_centre, spot.centred, 2 * spot.centred)  # 0 over the middle, 1 elsewhere
        clear = travel.clear(scene, self._thing, thing, spot.point, spot.rim)  # needed before it may move on sideways
        higher = max(clear - spot.rim, 0.0) + travel.style.lift_m
        way_out = travel.way_out(scene, self._thing, thing)
        if way_out is not None:
            return np.array([*way_out, travel.ground(scene, self._thing) + LIFT - underside])
        rise = spot.rim - spot.depth + over * (higher + spot.depth + RIM_CLEARANCE) - underside
        go = 1.0 if off_centre < 2 * spot.centred else ramp(underside, clear - travel.SLACK, clear)
        most = LIFT + (CARRY - LIFT) * ramp(underside - travel.ground(scene, self._thing), 0.0, LIFTED)
        return np.array([*(spot.point - thing.centre[:2]) * go, min(rise, most)])
