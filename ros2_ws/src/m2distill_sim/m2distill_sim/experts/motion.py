"""From what a skill intends to an action, and how a hand comes near what it will grasp.

A skill is a function of the scene: what the hand should do next, and whether anything is left to do. An expert does the
first of its skills that has something left. There is no clock, no plan and no memory, so a learner that sees the same
image can do the same thing, and after any disturbance the expert simply does what the new image calls for. Small
smooth variation in all seven numbers keeps a mixture density from collapsing on dimensions that never change.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.spatial.transform import Rotation

from m2distill_sim.experts.noise import SmoothNoise
from m2distill_sim.experts.scene import Extent, Scene, ramp
from m2distill_sim.libero_env import LiberoEnv

POINTING_DOWN = Rotation.from_quat([1.0, 0.0, 0.0, 0.0])  # xyzw; fingers open along the world's y axis
GAIN_PER_M, MAX_ACTION = 20.0, 0.9  # translation command per metre of error; 0.9 moves the hand 11 mm a step
ROTATION_GAIN_PER_RAD, MAX_ROTATION = 0.8, 0.3
GRIP_ACTION = 0.92  # below 1, so that variation shows on both sides
VARIATION_STD = (0.02, 0.02, 0.02, 0.03, 0.03, 0.03, 0.03)

FINGERTIP = 0.0125  # lowest height of the hand at which the fingertips stay off the floor
PALM = 0.027  # how far anything under the palm may rise above the hand
PALM_FRONT, PALM_BACK, PALM_SIDE = 0.042, 0.029, 0.107  # the palm's reach along +x, -x and y, with 4 mm to spare
HOVER = 0.04  # of the hand over its object before it goes down
ALIGNED, NOT_ALIGNED = 0.010, 0.025  # sideways error at which the hand goes all the way down, and not at all
TURNED = (0.5, 0.3)  # rad of error at which the hand does not go down, and all the way
FAR = 0.08  # sideways error at which what is on the way counts
OPEN_WIDTH = 0.075  # fingers further apart than this are open
YAW_LEFT, YAW_RIGHT = np.radians((135.0, -45.0))  # of the hand; the last joint reaches no further


@dataclass(frozen=True)
class Intent:
    """What the hand should do next."""

    phase: str  # what it is part of: "reach", "grasp", "carry" or "release"
    move: np.ndarray  # (3,) how far
    grip: float  # close (+1) or open (-1)
    turn: Rotation  # how to hold the hand
    done: bool = False  # nothing is left to do


@dataclass(frozen=True)
class Style:
    """How one episode differs from another besides where things are."""

    speed: float = 1.0
    bow_m: float = 0.0  # of a long way, to the side
    lift_m: float = 0.0  # of a long way, upwards
    offset_m: float = 0.0  # of a grasp, along what is grasped
    yaw_rad: float = 0.0  # of a grasp


def draw_style(rng: np.random.Generator) -> Style:
    return Style(
        speed=rng.uniform(0.85, 1.1),
        bow_m=rng.normal(0.0, 0.015),
        lift_m=rng.uniform(0.0, 0.03),
        offset_m=rng.uniform(-0.004, 0.004),
        yaw_rad=rng.normal(0.0, 0.05),
    )


class Skill(Protocol):
    def intend(self, scene: Scene) -> Intent: ...


class Expert:
    """`act` maps the environment's current state to an action; `done` once the last skill has finished."""

    def __init__(
        self, env: LiberoEnv, rng: np.random.Generator, skills: tuple[Skill, ...], style: Style, most_steps: int
    ):
        self._scene, self._skills, self._speed = Scene(env), skills, style.speed
        self.most_steps = most_steps  # an attempt that takes longer has gone astray and is no example
        self.done, self.phase = False, "reach"  # the phase is the last action's
        self._variation = SmoothNoise(rng, VARIATION_STD, correlation_steps=8.0)

    def act(self, env: LiberoEnv) -> np.ndarray:
        """(7,) in [-1, 1]: the intended action, human-like variation included."""
        scene = self._scene
        scene.look()
        for skill in self._skills:
            intent = skill.intend(scene)
            if not intent.done:
                break
        self.phase, self.done = intent.phase, intent.done
        turn = (intent.turn * scene.turn.inv()).as_rotvec()
        action = np.concatenate(
            [
                np.clip(self._speed * GAIN_PER_M * intent.move, -self._speed * MAX_ACTION, self._speed * MAX_ACTION),
                np.clip(ROTATION_GAIN_PER_RAD * turn, -MAX_ROTATION, MAX_ROTATION),
                [GRIP_ACTION * intent.grip],
            ]
        )
        return np.clip(action + self._variation.step(), -1.0, 1.0)


def turned(yaw: float) -> Rotation:
    """The hand pointing down, its fingers opening along the y axis of a frame of this yaw."""
    return Rotation.from_rotvec([0.0, 0.0, yaw]) * POINTING_DOWN


def tilted(towards: np.ndarray, tilt: float, fingers: np.ndarray) -> Rotation:
    """The hand tilted from pointing down by `tilt` rad towards a horizontal direction (2,), its fingers opening along
    another one before it is."""
    axis = np.array([-towards[1], towards[0], 0.0]) / np.linalg.norm(towards)
    return Rotation.from_rotvec(-tilt * axis) * turned(hand_yaw(fingers))


def hand_yaw(fingers: np.ndarray) -> float:
    """Of the hand whose fingers open along a horizontal direction (2,), either way round, within its reach."""
    yaw = np.arctan2(-fingers[0], fingers[1])
    return float((yaw - YAW_RIGHT) % np.pi + YAW_RIGHT)


def pointing(turn: Rotation) -> np.ndarray:
    """(3,) the direction in which the fingers point."""
    return turn.apply([0.0, 0.0, 1.0])


def yaw_of(turn: Rotation) -> float:
    """Of a hand that points about down."""
    return float((turn * POINTING_DOWN.inv()).as_rotvec()[2])


@dataclass(frozen=True)
class Over:
    """What the empty hand has to pass over on its way."""

    height: float  # to go at
    least: float  # at which it may move on sideways
    between: tuple[float, float]  # sideways errors: at the first it may have come down, up to the second it is up


class FloorTravel:
    """How high to go on LIBERO-OBJECT's floor, where one height passes over every grocery."""

    TRANSIT = 0.18
    SLACK = 0.05  # below the height it needs, at which a carried thing begins to move on sideways

    def __init__(self, style: Style):
        self.style = style

    def over(self, scene: Scene, thing: str, aim: np.ndarray) -> Over:
        """For the empty hand on its way to a point (3,) at a thing."""
        return Over(self.TRANSIT, -np.inf, (0.03, 0.12))

    def clear(self, scene: Scene, thing: str, extent: Extent, point: np.ndarray, rim: float) -> float:
        """Height of a carried thing's underside before it may move on sideways, to a point (2,) behind a rim."""
        return rim if 0.04 < np.linalg.norm(point - extent.centre[:2]) < 0.17 else 0.08

    def ground(self, scene: Scene, thing: str) -> float:
        """Height of what is under a thing."""
        return 0.0

    def way_out(self, scene: Scene, thing: str, extent: Extent) -> np.ndarray | None:
        """(2,) how far to move a thing sideways before it is lifted, where something hangs over it."""
        return None

    def level(self, scene: Scene) -> Rotation:
        """How to hold the hand while it lets go."""
        return POINTING_DOWN


class TableTravel:
    """How high to go on a table: over what stands on the way."""

    MARGIN = 0.03
    SLACK = 0.01
    TIPS, PALM_WIDE = 0.06, 0.11  # half widths of the way of fingertips and palm

    def __init__(self, style: Style):
        self.style = style

    def over(self, scene: Scene, thing: str, aim: np.ndarray) -> Over:
        tips = _highest(scene, scene.hand[:2], aim[:2], self.TIPS, thing) + FINGERTIP
        palm = _highest(scene, scene.hand[:2], aim[:2], self.PALM_WIDE, thing) - PALM
        least = max(tips, palm)
        return Over(least + self.MARGIN + self.style.lift_m, least, (0.012, 0.04))

    def clear(self, scene: Scene, thing: str, extent: Extent, point: np.ndarray, rim: float) -> float:
        half = max(extent.high[:2] - extent.low[:2]) / 2 + 0.01
        return max(rim, _highest(scene, extent.centre[:2], point, half, thing))

    def ground(self, scene: Scene, thing: str) -> float:
        return scene.height(scene.extent(thing).centre[:2], 0.0, (-0.02, -0.02), (0.02, 0.02), thing)

    def way_out(self, scene: Scene, thing: str, extent: Extent) -> np.ndarray | None:
        half = max(extent.high[:2] - extent.low[:2]) / 2 + 0.005

        def covered(way, above: float) -> bool:
            shapes = (half, 0.4 * half), (0.4 * half, half), (0.75 * half, 0.75 * half)
            heights = [scene.height(extent.centre[:2] + way, 0.0, (-x, -y), (x, y), thing, above) for x, y in shapes]
            return max(heights) > extent.low[2] + 0.02

        if not covered((0.0, 0.0), extent.low[2] + 0.02):
            return None
        ways = [
            length * np.array([np.cos(angle), np.sin(angle)])
            for length in (0.02, 0.04, 0.06, 0.08)
            for angle in np.arange(8) * np.pi / 4
        ]
        return next((way for way in ways if not covered(way, -np.inf)), None)

    def level(self, scene: Scene) -> Rotation:
        return turned(yaw_of(scene.turn))


def _highest(scene: Scene, begin, end, half: float, ignore: str) -> float:
    way = np.asarray(end) - begin
    return scene.height(begin, np.arctan2(way[1], way[0]), (-0.03, -half), (np.linalg.norm(way) + 0.03, half), ignore)


def reach_down(
    scene: Scene, point: np.ndarray, top: float, over: Over, turn: Rotation, style: Style, ready: bool
) -> np.ndarray:
    """Over a thing of height `top`, then down to `point`: a funnel whose height depends on the sideways error alone;
    further away `over` what is on the way. Not all the way down until the fingers are `ready`. (3,) how far to move."""
    error, hand = point - scene.hand, scene.hand
    sideways = np.linalg.norm(error[:2])
    hover = top + HOVER
    down = ramp(sideways, NOT_ALIGNED, ALIGNED) if ready else 0.0
    is_turned = ramp((turn * scene.turn.inv()).magnitude(), *TURNED)
    down *= is_turned
    height = error[2] + hand[2] + (1.0 - down) * (hover - error[2] - hand[2])
    height += max(ramp(sideways, *over.between), 1.0 - is_turned) * max(over.height - hover, 0.0)
    low = hand[2] < top + HOVER / 4 and sideways > NOT_ALIGNED
    beside = low or (hand[2] < over.least and sideways > FAR)  # would push something over
    move = np.array([*(error[:2] * (0.1 if beside else 1.0)), height - hand[2]])
    move[:2] += style.bow_m * ramp(sideways, 0.05, 0.15) * np.array([-error[1], error[0]]) / max(sideways, 0.01)
    return move


STANDOFF = 0.07  # of the hand in front of what it reaches for ahead


def reach_along(scene: Scene, point: np.ndarray, turn: Rotation) -> np.ndarray:
    """In front of `point`, then to it in the direction in which the fingers shall point. (3,) how far to move."""
    ahead, error = pointing(turn), point - scene.hand
    aside = error - error @ ahead * ahead
    distance = np.linalg.norm(aside)
    close = ramp(distance, NOT_ALIGNED, ALIGNED) * ramp((turn * scene.turn.inv()).magnitude(), *TURNED)
    move = error - (1.0 - close * (scene.width > OPEN_WIDTH)) * STANDOFF * ahead
    beside = error @ ahead < STANDOFF / 2 and distance > NOT_ALIGNED
    return move - 0.9 * aside if beside else move
