"""Demonstrations generated from human ones: the hand's recorded path, moved with the object to another placement.

The idea is that of MimicGen (Mandlekar et al., "MimicGen: A Data Generation System for Scalable Robot Learning using
Human Demonstrations", CoRL 2023): what the hand does to an object is the same relative to the object, wherever it lies.
Ours differs in the way there. MimicGen adds a straight line from the hand to the first moved pose; here the distance
between the two fades out over the first part of the path, so that the shape of a person's motion remains.
The way to the grasp is taken faster than by a person at a keyboard, who moves the hand at a fifth of its speed.

The path is followed under the disturbances of scripted experts, and the recorded action is the one that returns to it
(DART). Attempts that end without success are not kept.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from m2distill_sim.arm_env import SimObservation
from m2distill_sim.experts.noise import Disturbance
from m2distill_sim.libero_writer import SimulatedEpisode, observation_datasets
from m2distill_sim.lift_env import LiftEnv

STEADY_M, STEADY_RAD = 0.0127, 0.115  # how far a lasting action of 1 moves and turns the hand in a step; measured
SMOOTH_STEPS = 5  # a key press is a jerk, and its mean over so many steps is the motion it was meant for
GAIN_PER_M, GAIN_PER_RAD = 20.0, 0.8  # action for each metre and radian beside the path, as of the scripted experts
ASIDE_M, ASIDE_AT_GRASP_M = 0.02, 0.01  # beside the path, at which the hand returns to it before it continues
WAIT_STEPS = 10  # at most, for one step of the path: contact may keep the hand from it
FASTER = 1.8  # than recorded, on the way to the grasp
FADE = 0.7  # part of the way to the grasp over which the distance to the moved path fades out
GRASP_STEPS = (5, 8)  # before and after the fingers' command to close
LINGER_STEPS, MAX_STEPS = 6, 400  # at the end of the path; of an attempt
SQUARE_RAD = np.pi / 2  # turns by which the cube looks the same


@dataclass(frozen=True)
class Pose:
    """Position (3,) in m and orientation, in the world's frame."""

    position: np.ndarray
    orientation: Rotation


@dataclass(frozen=True)
class HandPath:
    """T + 1 poses of the hand, and the command to the fingers before each of the T motions between them."""

    positions: np.ndarray  # (T + 1, 3) m
    orientations: Rotation  # T + 1
    gripper: np.ndarray  # (T,) -1 open, 1 closed

    @property
    def grasp(self) -> int:
        """Return the first step with the command to close the fingers; T if there is none."""
        return int(np.argmax(np.append(self.gripper, 1.0) > 0))

    def actions(self) -> np.ndarray:
        """Return the actions (T, 7) that continue the motion, smoothed over SMOOTH_STEPS."""
        turned = (self.orientations[1:] * self.orientations[:-1].inv()).as_rotvec()
        motion = np.hstack([np.diff(self.positions, axis=0) / STEADY_M, turned / STEADY_RAD])  # (T, 6)
        side = SMOOTH_STEPS // 2
        padded = np.pad(motion, ((side, side), (0, 0)), mode="edge")
        smooth = np.mean([padded[k : k + len(motion)] for k in range(SMOOTH_STEPS)], axis=0)
        return np.column_stack([smooth, self.gripper])


def path_of(seen: list[SimObservation], gripper: np.ndarray) -> HandPath:
    """Return the path through T + 1 observations; `gripper` (T,) are the fingers' commands."""
    return HandPath(
        np.array([o.ee_pos for o in seen]), Rotation.from_quat([o.ee_quat_xyzw for o in seen]), np.asarray(gripper)
    )


def faster(path: HandPath, factor: float = FASTER) -> HandPath:
    """Return the path with the way to the grasp taken faster. The last steps before it keep their speed."""
    last = len(path.gripper)
    slow = max(0, path.grasp - GRASP_STEPS[0])
    times = np.concatenate([np.linspace(0, slow, round(slow / factor), endpoint=False), np.arange(slow, last + 1)])
    positions = [np.interp(times, np.arange(last + 1), axis) for axis in path.positions.T]
    orientations = Slerp(np.arange(last + 1), path.orientations)(times)
    return HandPath(np.stack(positions, axis=1), orientations, path.gripper[times[:-1].astype(int)])


def moved(path: HandPath, before: Pose, now: Pose, hand: Pose) -> HandPath:
    """Return the path for an object that was at `before` and is `now` elsewhere on the table, begun at `hand`.

    The object is turned about the vertical alone, by at most an eighth of a turn, because a square looks the same
    after a quarter.
    """
    angle = _yaw(now.orientation) - _yaw(before.orientation)
    angle = (angle + SQUARE_RAD / 2) % SQUARE_RAD - SQUARE_RAD / 2
    turn = Rotation.from_rotvec([0.0, 0.0, angle])
    positions = turn.apply(path.positions - before.position) + now.position
    orientations = turn * path.orientations
    fade = np.clip(1.0 - np.arange(len(positions)) / max(1.0, FADE * path.grasp), 0.0, 1.0)[:, None]
    aside = (hand.orientation * orientations[0].inv()).as_rotvec()
    return HandPath(
        positions + fade * (hand.position - positions[0]),
        Rotation.from_rotvec(fade * aside) * orientations,
        path.gripper,
    )


def _yaw(orientation: Rotation) -> float:
    """Return the angle in rad about the vertical by which the x axis is turned."""
    x = orientation.apply([1.0, 0.0, 0.0])
    return float(np.arctan2(x[1], x[0]))


def attempt(env: LiftEnv, path: HandPath, before: Pose, rng: np.random.Generator) -> SimulatedEpisode | None:
    """Return a disturbed episode along the moved path at a new placement, or None if the cube was not lifted.

    Args:
        env: its images are stored as observed before each action. Successful attempts alone are rendered.
        path: of a demonstration.
        before: the cube in that demonstration.
        rng: draws placement and disturbances.
    """
    placement = int(rng.integers(2**31))
    hand = env.reset(None, seed=placement)
    steps = _follow(env, moved(path, before, cube_pose(env), hand_pose(hand)), Disturbance(rng))
    if not env.success():
        return None
    seen, rows = env.reset(None, seed=placement), []
    for action, added in steps:
        rows.append({"actions": action, "disturbances": added, "states": env.state(), **observation_datasets(seen)})
        seen = env.step(action + added)
    return SimulatedEpisode.of_rows(rows, env.model_xml())


def _follow(env: LiftEnv, path: HandPath, disturbance: Disturbance) -> list[tuple[np.ndarray, np.ndarray]]:
    """Move the hand along the path; return the action and the disturbance of each step."""
    motions, end = path.actions(), len(path.gripper)
    steps: list[tuple[np.ndarray, np.ndarray]] = []
    step, waited = 0, 0  # step of the path
    while step < end + LINGER_STEPS and len(steps) < MAX_STEPS:
        at = min(step, end)
        hand = hand_pose(env.observe(render=False))
        aside = path.positions[at] - hand.position
        turned = (path.orientations[at] * hand.orientation.inv()).as_rotvec()
        motion = np.concatenate([GAIN_PER_M * aside, GAIN_PER_RAD * turned])
        allowed = ASIDE_M if step < path.grasp - GRASP_STEPS[0] else ASIDE_AT_GRASP_M
        on_path = bool(np.linalg.norm(aside) < allowed) or step > path.grasp or waited == WAIT_STEPS
        waited = 0 if on_path else waited + 1
        if on_path and at < end:
            motion += motions[at, :6]
        action = np.append(np.clip(motion, -1.0, 1.0), path.gripper[min(at, end - 1)])
        steps.append((action, disturbance.step(_phase(step, path.grasp), action)))
        env.step(np.add(*steps[-1]), render=False)
        step += on_path
    return steps


def _phase(step: int, grasp: int) -> str:
    """Return the phase of a step, which scales the disturbances."""
    if step < grasp - GRASP_STEPS[0]:
        return "reach"
    return "grasp" if step < grasp + GRASP_STEPS[1] else "carry"


def hand_pose(observation: SimObservation) -> Pose:
    return Pose(observation.ee_pos, Rotation.from_quat(observation.ee_quat_xyzw))


def cube_pose(env: LiftEnv) -> Pose:
    """Return the pose of the cube."""
    position, (w, x, y, z) = np.split(env.data.qpos[-7:].copy(), [3])
    return Pose(position, Rotation.from_quat([x, y, z, w]))
