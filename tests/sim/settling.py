"""Measure how an initial state comes to rest on the built-in assets."""

from dataclasses import dataclass

import numpy as np

STEPS = 20  # control steps with a zero action, one second


@dataclass(frozen=True)
class Settled:
    """Largest values over a scene's objects, one second after an initial state was set. The robot does not count."""

    depth_m: float  # deepest overlap of two bodies at the end
    speed_m_s: float  # of an object at the end
    shift_m: float  # horizontal, from its position in the state
    drop_m: float  # downward; a rise is negative
    lean_rad: float  # of an object's upright axis
    done: bool  # the goal held at some step


def settle(env, state) -> Settled:
    """Set `state` (D,) and simulate one second."""
    env.reset(state, settle_steps=0)
    start = {name: env.object_pose(name) for name in env.object_names}
    done = env.success()
    for _ in range(STEPS):
        env.step(np.zeros(7), render=False)
        done = done or env.success()
    shifts, drops, leans, speeds = [], [], [], []
    for name, (pos, turn) in start.items():
        now, turned = env.object_pose(name)
        shifts.append(np.linalg.norm(now[:2] - pos[:2]))
        drops.append(pos[2] - now[2])
        leans.append(np.arccos(np.clip((turn.T @ turned)[_upright(turn)], -1, 1)))
        body = env.object_body(name)
        speeds.append(np.linalg.norm(env.data.cvel[body][3:]))
    return Settled(overlap(env), max(speeds), max(shifts), max(drops, key=abs), max(leans), done)


def overlap(env) -> float:
    """Return the deepest penetration in m of two bodies, neither of which is the robot."""
    depth = 0.0
    for contact in env.data.contact[: env.data.ncon]:
        names = [env.model.body(env.model.geom_bodyid[geom]).name for geom in contact.geom]
        if not any(name.startswith(("robot0_", "gripper0_", "mount0_")) for name in names):
            depth = max(depth, -contact.dist)
    return float(depth)


def _upright(turn) -> tuple[int, int]:
    axis = int(np.abs(turn[2]).argmax())
    return axis, axis
