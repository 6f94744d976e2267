"""An expert that picks one object up and lets it go in a basket, made to be cloned.

What it does is a function of what cameras and joints show: where the hand is relative to object and basket, how far the
fingers are open. There is no clock, no plan and no memory, so a learner that sees the same picture can do the same
thing, and after any disturbance the expert simply does what the new picture calls for. It slows down before every goal,
lifts slowly at first, waits while the fingers open, and keeps the hand pointing down. Decisions are hard to reverse:
closing begins within 1 cm of the grasp, but is given up only 3.5 cm away, so a learner's small errors do not make it
dither. Small smooth variation in all seven numbers keeps a mixture density from collapsing on dimensions that never
change.

Lengths in m, world frame, z up; "hand" is the point between the fingertips.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from m2distill_sim.experts.noise import SmoothNoise
from m2distill_sim.libero_env import LiberoEnv, SimObservation
from m2distill_sim.renderer import mujoco

POINTING_DOWN = Rotation.from_quat([1.0, 0.0, 0.0, 0.0])  # xyzw; fingers open along the world's y axis
GAIN_PER_M, MAX_ACTION = 20.0, 0.9  # translation command per metre of error; 0.9 moves the hand 11 mm a step
ROTATION_GAIN_PER_RAD, MAX_ROTATION = 0.8, 0.3
GRIP_ACTION = 0.92  # below 1, so that variation shows on both sides
VARIATION_STD = (0.02, 0.02, 0.02, 0.03, 0.03, 0.03, 0.03)

FINGERTIP = 0.0125  # lowest height of the hand at which the fingertips stay off the floor
PALM = 0.027  # how far anything under the palm may rise above the hand
PALM_FRONT, PALM_BACK, PALM_SIDE = 0.042, 0.029, 0.107  # the palm's reach along +x, -x and y, with 4 mm to spare
MAX_SHIFT = 0.02  # of the grasp along the object, to keep the palm off a taller neighbour
TRANSIT = 0.18  # height of the hand that passes over every grocery
HOVER = 0.04  # of the hand over its object before it goes down
ALIGNED, NOT_ALIGNED = 0.010, 0.025  # sideways error at which the hand goes all the way down, and not at all
SLIPPED = 0.035  # a closing hand further than this from the grasp has missed
SNUG = 0.006  # fingers not wider than the object by more than this hold it
LIFT, CARRY, LIFTED = 0.006, 0.045, 0.04  # largest move of a step: on the floor, and with the underside this high
EMPTY_WIDTH = 0.012  # fingers closer together than this hold nothing
OPEN_WIDTH = 0.075  # fingers further apart than this are open
RIM_CLEARANCE = 0.025  # of the object's underside over the basket's rim while it is carried
PLACE_DEPTH = 0.03  # of the object's underside below the rim when it is let go
CENTRED = 0.02  # sideways error over the basket at which it may be let go
INSIDE = 0.06  # half width of the basket's containing region, LIBERO's
RETREAT = 0.12  # height of the hand over the rim at which the episode is over


@dataclass(frozen=True)
class Extent:
    """An object's axis-aligned bounds, now."""

    low: np.ndarray  # (3,)
    high: np.ndarray  # (3,)

    @property
    def centre(self) -> np.ndarray:
        return (self.low + self.high) / 2


class PickAndPlace:
    """`act` maps the environment's current state to an action; `done` once the hand has let go and drawn back."""

    def __init__(self, env: LiberoEnv, rng: np.random.Generator):
        self.done = False
        self.phase = "reach"  # of the last action: "reach", "grasp", "carry" or "release"
        self._object, self._basket = env.objects_of_interest
        self._corners = {name: _corners(env, name) for name in env.object_names}
        self._variation = SmoothNoise(rng, VARIATION_STD, correlation_steps=8.0)

    def act(self, env: LiberoEnv) -> np.ndarray:
        """(7,) in [-1, 1]: the intended action, human-like variation included."""
        observation = env.observe(render=False)
        move, grip = self._intent(env, observation)
        tilt = (POINTING_DOWN * Rotation.from_quat(observation.ee_quat_xyzw).inv()).as_rotvec()
        action = np.concatenate([np.clip(GAIN_PER_M * move, -MAX_ACTION, MAX_ACTION),
                                 np.clip(ROTATION_GAIN_PER_RAD * tilt, -MAX_ROTATION, MAX_ROTATION),
                                 [GRIP_ACTION * grip]])
        return np.clip(action + self._variation.step(), -1.0, 1.0)

    def _intent(self, env: LiberoEnv, observation: SimObservation) -> tuple[np.ndarray, float]:
        """How far to move (3,) and whether to close (+1) or open (-1)."""
        bounds = {name: _extent(env, name, corners) for name, corners in self._corners.items()}
        thing, basket = bounds.pop(self._object), bounds.pop(self._basket)
        hand, rim = observation.ee_pos, basket.high[2]
        width = observation.gripper_positions[0] - observation.gripper_positions[1]
        fingers_open = width > OPEN_WIDTH
        off_centre = np.linalg.norm(basket.centre[:2] - thing.centre[:2])

        delivered = off_centre < INSIDE and thing.high[2] < rim + PLACE_DEPTH
        placed = off_centre < CENTRED and thing.low[2] < rim - PLACE_DEPTH / 2
        if delivered or placed:
            self.phase = "release"
            rise = rim + RETREAT + HOVER - hand[2] if fingers_open else 0.0
            self.done = bool(fingers_open and hand[2] > rim + RETREAT)
            return np.array([0.0, 0.0, rise]), -1.0

        grasp = _grasp(thing, bounds.values())
        error = grasp - hand
        sideways = np.linalg.norm(error[:2])
        reached = max(sideways, abs(error[2])) < (ALIGNED if fingers_open else SLIPPED)
        if not reached or width < EMPTY_WIDTH:
            self.phase = "reach" if sideways > NOT_ALIGNED else "grasp"
            return self._approach(error, sideways, hand, thing, fingers_open), -1.0
        held = width < thing.high[1] - thing.low[1] + SNUG
        if not held:
            self.phase = "grasp"
            return error, 1.0
        self.phase = "carry"
        return self._carry(thing, basket, off_centre), 1.0

    def _approach(self, error, sideways, hand, thing, fingers_open) -> np.ndarray:
        """Over the object, then down: a funnel whose height depends on the sideways error alone."""
        hover = thing.high[2] + HOVER
        down = _ramp(sideways, NOT_ALIGNED, ALIGNED) if fingers_open else 0.0
        height = error[2] + hand[2] + (1.0 - down) * (hover - error[2] - hand[2])
        height += _ramp(sideways, 0.03, 0.12) * max(TRANSIT - hover, 0.0)
        beside = hand[2] < thing.high[2] + HOVER / 4 and sideways > NOT_ALIGNED  # would push it over
        return np.array([*(error[:2] * (0.1 if beside else 1.0)), height - hand[2]])

    def _carry(self, thing, basket, off_centre) -> np.ndarray:
        """Up, over the rim, to the basket's middle, down a little; the object's own bounds say when.

        The lift begins so slowly that the fingers grow firm meanwhile: when they are firm enough cannot be seen, so
        nothing may hang on it.
        """
        rim, underside = basket.high[2], thing.low[2]
        over = _ramp(off_centre, CENTRED, 2 * CENTRED)  # 0 over the middle, 1 elsewhere
        rise = rim - PLACE_DEPTH + over * (PLACE_DEPTH + RIM_CLEARANCE) - underside
        clear = rim if 2 * CENTRED < off_centre < 0.17 else 0.08  # needed before it may move on sideways
        go = 1.0 if off_centre < 2 * CENTRED else _ramp(underside, clear - 0.05, clear)
        most = LIFT + (CARRY - LIFT) * _ramp(underside, 0.0, LIFTED)
        return np.array([*(basket.centre[:2] - thing.centre[:2]) * go, min(rise, most)])


def _grasp(thing: Extent, neighbours) -> np.ndarray:
    """(3,) where the hand closes: the object's middle, as low as palm and floor allow, clear of taller neighbours."""
    grasp = thing.centre
    grasp[2] = max(grasp[2], thing.high[2] - PALM, FINGERTIP)
    least, most = grasp[0] - MAX_SHIFT, grasp[0] + MAX_SHIFT
    for other in neighbours:
        beside = other.low[1] < grasp[1] + PALM_SIDE and other.high[1] > grasp[1] - PALM_SIDE
        if beside and other.high[2] > grasp[2] + PALM:
            if other.centre[0] > thing.centre[0]:
                grasp[0] = max(min(grasp[0], other.low[0] - PALM_FRONT), least)
            else:
                grasp[0] = min(max(grasp[0], other.high[0] + PALM_BACK), most)
    return grasp


def _ramp(value: float, zero_at: float, one_at: float) -> float:
    return float(np.clip((value - zero_at) / (one_at - zero_at), 0.0, 1.0))


def _corners(env: LiberoEnv, name: str) -> np.ndarray:
    """(n, 3) corners of the object's collision geoms in its own frame."""
    model, body = env.model, env.object_body(name)
    corners = []
    for geom in range(model.ngeom):
        if model.body_rootid[model.geom_bodyid[geom]] != body or model.geom_contype[geom] == 0:
            continue
        half = model.geom_size[geom].copy()
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CYLINDER:
            half = half[[0, 0, 1]]
        signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
        points = Rotation.from_quat(model.geom_quat[geom], scalar_first=True).apply(signs * half) + model.geom_pos[geom]
        child = model.geom_bodyid[geom]
        while child != body:
            turn = Rotation.from_quat(model.body_quat[child], scalar_first=True)
            points, child = turn.apply(points) + model.body_pos[child], model.body_parentid[child]
        corners.append(points)
    return np.concatenate(corners)


def _extent(env: LiberoEnv, name: str, corners: np.ndarray) -> Extent:
    position, rotation = env.object_pose(name)
    points = corners @ rotation.T + position
    return Extent(points.min(axis=0), points.max(axis=0))
