"""Experts: from a skill's intent to an action, and approach motions of the hand.

A skill is a function of the scene. It returns what the hand should do next and whether the skill is done. An expert
runs the first of its skills that is not done. There is no clock, no plan and no memory, so a learner that sees the same
image can do the same, and the expert recovers from any disturbance by reacting to the new state. Small smooth variation
in all seven action dimensions keeps a mixture density from collapsing on dimensions that never change.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.spatial.transform import Rotation

from m2distill_sim.experts.noise import SmoothNoise
from m2distill_sim.experts.scene import BoundingBox, Scene, distance, ramp
from m2distill_sim.libero_env import LiberoEnv

POINTING_DOWN = Rotation.from_quat([1.0, 0.0, 0.0, 0.0])  # xyzw; fingers open along the world's y axis
GAIN_PER_M, MAX_ACTION = 20.0, 0.9  # translation command per metre of error; 0.9 moves the hand 11 mm a step
ROTATION_GAIN_PER_RAD, MAX_ROTATION = 0.8, 0.3
GRIP_ACTION = 0.92  # below 1, so that variation shows on both sides
VARIATION_STD = (0.02, 0.02, 0.02, 0.03, 0.03, 0.03, 0.03)

# Lengths in m, angles in rad.
FINGERTIP = 0.0125  # lowest height of the hand at which the fingertips stay off the floor
PALM = 0.027  # largest height above the hand of anything under the palm
PALM_FRONT, PALM_BACK, PALM_SIDE = 0.042, 0.029, 0.107  # the palm's reach along +x, -x and y, with 4 mm to spare
PREGRASP_HEIGHT = 0.04  # of the hand over its object before it descends
ALIGNED, NOT_ALIGNED = 0.010, 0.025  # sideways error at which the hand descends all the way, and not at all
ORIENTED = (0.5, 0.3)  # orientation error at which the hand does not descend, and descends all the way
FAR = 0.08  # sideways error above which obstacles on the way count
OPEN_WIDTH = 0.075  # gripper width above which the gripper is open
STANDOFF = 0.07  # of the hand in front of what it approaches along its fingers
YAW_LEFT, YAW_RIGHT = np.radians((135.0, -45.0))  # of the hand; limits of the last joint


@dataclass(frozen=True)
class Intent:
    """Next motion of the hand."""

    phase: str  # "reach", "grasp", "carry" or "release"
    translation: np.ndarray  # (3,) m
    gripper: float  # close (+1) or open (-1)
    orientation: Rotation  # target of the hand
    done: bool = False  # the skill has nothing left to do


@dataclass(frozen=True)
class Style:
    """Variation between episodes that does not depend on where objects are."""

    speed: float = 1.0
    bow_m: float = 0.0  # sideways, of a long path
    lift_m: float = 0.0  # upwards, of a long path
    offset_m: float = 0.0  # of a grasp, along the object
    yaw_rad: float = 0.0  # of a grasp


def draw_style(rng: np.random.Generator) -> Style:
    """Draw the style of one episode."""
    return Style(
        speed=rng.uniform(0.85, 1.1),
        bow_m=rng.normal(0.0, 0.015),
        lift_m=rng.uniform(0.0, 0.03),
        offset_m=rng.uniform(-0.004, 0.004),
        yaw_rad=rng.normal(0.0, 0.05),
    )


class Skill(Protocol):
    """Function from the scene to an intent."""

    def intend(self, scene: Scene) -> Intent: ...


class Expert:
    """Scripted policy of one episode. `done` is True once the last skill has finished."""

    def __init__(
        self, env: LiberoEnv, rng: np.random.Generator, skills: tuple[Skill, ...], style: Style, max_steps: int
    ):
        self._scene, self._skills, self._speed = Scene(env), skills, style.speed
        self.max_steps = max_steps  # a longer attempt has failed
        self.done, self.phase = False, "reach"  # of the last action
        self._variation = SmoothNoise(rng, VARIATION_STD, correlation_steps=8.0)

    def act(self, env: LiberoEnv) -> np.ndarray:
        """Return the action (7,) in [-1, 1] for the environment's current state, variation included."""
        scene = self._scene
        scene.update()
        for skill in self._skills:
            intent = skill.intend(scene)
            if not intent.done:
                break
        self.phase, self.done = intent.phase, intent.done
        rotation = (intent.orientation * scene.orientation.inv()).as_rotvec()
        limit = self._speed * MAX_ACTION
        action = np.concatenate(
            [
                np.clip(self._speed * GAIN_PER_M * intent.translation, -limit, limit),
                np.clip(ROTATION_GAIN_PER_RAD * rotation, -MAX_ROTATION, MAX_ROTATION),
                [GRIP_ACTION * intent.gripper],
            ]
        )
        return np.clip(action + self._variation.step(), -1.0, 1.0)


def hand_at_yaw(yaw: float) -> Rotation:
    """Return the orientation of a hand that points down, its fingers opening along the y axis of a frame at `yaw`."""
    return Rotation.from_rotvec([0.0, 0.0, yaw]) * POINTING_DOWN


def tilted_hand(towards: np.ndarray, tilt: float, fingers: np.ndarray) -> Rotation:
    """Return the orientation of a hand that is tilted from pointing down.

    Args:
        towards: (2,) horizontal direction of the tilt.
        tilt: rad.
        fingers: (2,) horizontal direction in which the fingers open before the tilt.
    """
    axis = np.array([-towards[1], towards[0], 0.0]) / np.linalg.norm(towards)
    return Rotation.from_rotvec(-tilt * axis) * hand_at_yaw(hand_yaw(fingers))


def hand_yaw(fingers: np.ndarray) -> float:
    """Return the yaw, within the joint limits, of a hand whose fingers open along a horizontal direction (2,)."""
    yaw = np.arctan2(-fingers[0], fingers[1])
    return float((yaw - YAW_RIGHT) % np.pi + YAW_RIGHT)


def finger_direction(orientation: Rotation) -> np.ndarray:
    """Return the direction (3,) in which the fingers point."""
    return orientation.apply([0.0, 0.0, 1.0])


def yaw_of(orientation: Rotation) -> float:
    """Return the yaw of a hand that points approximately down."""
    return float((orientation * POINTING_DOWN.inv()).as_rotvec()[2])


def angle_between(a: Rotation, b: Rotation) -> float:
    """Return the angle in rad between two orientations."""
    return float((a * b.inv()).magnitude())


@dataclass(frozen=True)
class TransitProfile:
    """Heights of the empty hand while it travels over obstacles."""

    height: float  # of the transit
    min_height: float  # below which the hand must not move sideways
    blend: tuple[float, float]  # sideways errors at which the hand has descended from it, and is at full height


class FloorTransit:
    """Transit heights on LIBERO-OBJECT's floor, where one height clears every grocery."""

    TRANSIT = 0.18
    SLACK = 0.05  # below the required height, where a carried object begins to move sideways

    def __init__(self, style: Style):
        self.style = style

    def profile(self, scene: Scene, name: str, target: np.ndarray) -> TransitProfile:
        """Return the heights for the empty hand on its way to a point (3,) at the object `name`."""
        return TransitProfile(self.TRANSIT, -np.inf, (0.03, 0.12))

    def carry_height(self, scene: Scene, name: str, box: BoundingBox, target: np.ndarray, rim: float) -> float:
        """Return the height that the underside of a carried object needs before it may move sideways.

        Args:
            scene: the scene.
            name: of the carried object.
            box: of the carried object.
            target: (2,) where it is carried.
            rim: height of the rim around the target.
        """
        return rim if 0.04 < np.linalg.norm(target - box.centre[:2]) < 0.17 else 0.08

    def support_height(self, scene: Scene, name: str) -> float:
        """Return the height of the surface under an object."""
        return 0.0

    def escape_move(self, scene: Scene, name: str, box: BoundingBox) -> np.ndarray | None:
        """Return the sideways move (2,) that an object needs before it can be lifted, None if nothing is above it."""
        return None

    def release_orientation(self, scene: Scene) -> Rotation:
        """Return the orientation of the hand while it releases an object."""
        return POINTING_DOWN


class TableTransit:
    """Transit heights on a table: above the obstacles on the way. Methods as in FloorTransit."""

    MARGIN = 0.03
    SLACK = 0.01
    TIPS_HALF_WIDTH, PALM_HALF_WIDTH = 0.06, 0.11  # of the corridors swept by fingertips and palm

    def __init__(self, style: Style):
        self.style = style

    def profile(self, scene: Scene, name: str, target: np.ndarray) -> TransitProfile:
        tips = _corridor_height(scene, scene.hand[:2], target[:2], self.TIPS_HALF_WIDTH, name) + FINGERTIP
        palm = _corridor_height(scene, scene.hand[:2], target[:2], self.PALM_HALF_WIDTH, name) - PALM
        least = max(tips, palm)
        return TransitProfile(least + self.MARGIN + self.style.lift_m, least, (0.012, 0.04))

    def carry_height(self, scene: Scene, name: str, box: BoundingBox, target: np.ndarray, rim: float) -> float:
        half = max(box.high[:2] - box.low[:2]) / 2 + 0.01
        return max(rim, _corridor_height(scene, box.centre[:2], target, half, name))

    def support_height(self, scene: Scene, name: str) -> float:
        return scene.max_height(scene.bounds(name).centre[:2], 0.0, (-0.02, -0.02), (0.02, 0.02), name)

    def escape_move(self, scene: Scene, name: str, box: BoundingBox) -> np.ndarray | None:
        half = max(box.high[:2] - box.low[:2]) / 2 + 0.005

        def covered(move, above: float) -> bool:
            shapes = (half, 0.4 * half), (0.4 * half, half), (0.75 * half, 0.75 * half)
            heights = [scene.max_height(box.centre[:2] + move, 0.0, (-x, -y), (x, y), name, above) for x, y in shapes]
            return max(heights) > box.low[2] + 0.02

        if not covered((0.0, 0.0), box.low[2] + 0.02):
            return None
        moves = [
            length * np.array([np.cos(angle), np.sin(angle)])
            for length in (0.02, 0.04, 0.06, 0.08)
            for angle in np.arange(8) * np.pi / 4
        ]
        return next((move for move in moves if not covered(move, -np.inf)), None)

    def release_orientation(self, scene: Scene) -> Rotation:
        return hand_at_yaw(yaw_of(scene.orientation))


Transit = FloorTransit | TableTransit


def _corridor_height(scene: Scene, begin, end, half: float, ignore: str) -> float:
    """Return the height of the highest obstacle in a corridor of half width `half` between two points (2,)."""
    way = np.asarray(end) - begin
    yaw = np.arctan2(way[1], way[0])
    return scene.max_height(begin, yaw, (-0.03, -half), (np.linalg.norm(way) + 0.03, half), ignore)


def approach_from_above(
    scene: Scene,
    point: np.ndarray,
    top: float,
    profile: TransitProfile,
    orientation: Rotation,
    style: Style,
    ready: bool,
) -> np.ndarray:
    """Return the move (3,) of a hand that approaches a point from above.

    The height follows a funnel that depends on the sideways error alone; further away it follows the transit profile.

    Args:
        scene: the scene.
        point: (3,) target of the hand.
        top: height of the object at the target.
        profile: transit heights over the obstacles on the way.
        orientation: target of the hand.
        style: of the episode.
        ready: the fingers are ready; otherwise the hand stops at the pre-grasp height.
    """
    error, hand = point - scene.hand, scene.hand
    sideways = distance(error[:2])
    pregrasp = top + PREGRASP_HEIGHT
    down = ramp(sideways, NOT_ALIGNED, ALIGNED) if ready else 0.0
    is_oriented = ramp(angle_between(orientation, scene.orientation), *ORIENTED)
    down *= is_oriented
    height = error[2] + hand[2] + (1.0 - down) * (pregrasp - error[2] - hand[2])
    height += max(ramp(sideways, *profile.blend), 1.0 - is_oriented) * max(profile.height - pregrasp, 0.0)
    low = hand[2] < top + PREGRASP_HEIGHT / 4 and sideways > NOT_ALIGNED
    beside = low or (hand[2] < profile.min_height and sideways > FAR)  # a sideways move would knock something over
    move = np.array([*(error[:2] * (0.1 if beside else 1.0)), height - hand[2]])
    move[:2] += style.bow_m * ramp(sideways, 0.05, 0.15) * np.array([-error[1], error[0]]) / max(sideways, 0.01)
    return move


def approach_along_fingers(scene: Scene, point: np.ndarray, orientation: Rotation) -> np.ndarray:
    """Return the move (3,) of a hand that stops in front of `point`, then approaches it along its fingers."""
    ahead, error = finger_direction(orientation), point - scene.hand
    aside = error - error @ ahead * ahead
    offset = distance(aside)
    close = ramp(offset, NOT_ALIGNED, ALIGNED) * ramp(angle_between(orientation, scene.orientation), *ORIENTED)
    move = error - (1.0 - close * (scene.gripper_width > OPEN_WIDTH)) * STANDOFF * ahead
    beside = error @ ahead < STANDOFF / 2 and offset > NOT_ALIGNED
    return move - 0.9 * aside if beside else move
