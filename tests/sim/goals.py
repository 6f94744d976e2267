"""Complete a task without an arm, to test its predicates: drop objects at their targets, move joints, run physics."""

import mujoco
import numpy as np

OPEN_DRAWER_M, CLOSED_DRAWER_M, CLOSED_DOOR_RAD, KNOB_ON_RAD = -0.15, 0.005, 0.0, 1.0
LYING = (0.70711, 0.0, 0.70711, 0.0)  # wxyz, an upright object laid along x
RACK_SEAT_M = (0.06, -0.0207, 0.0254)  # between shelf and stopper, in the frame of the rack's region
CLEARANCE_M = 0.03  # height over the lower end of a region from which objects are dropped
APART_M = {
    "basket_1_contain_region": (0.0, 0.045),
    "flat_stove_1_cook_region": (0.045, 0.0),
}  # sideways offset of two objects on one target


def complete_task(env) -> bool:
    """Bring about all of the goal, wait until objects rest, and return True if the goal holds."""
    goals = env._env.parsed_problem["goal_state"]
    targets = [goal[2] for goal in goals if len(goal) == 3]
    closing = [goal[1] for goal in goals if goal[0] == "close"]
    for name in targets + [goal[1] for goal in goals if goal[0] == "open"]:
        if "cabinet" in name and not name.endswith("top_side"):
            _joint(env, name).qpos = OPEN_DRAWER_M
    for goal in goals:
        if goal[0] == "turnon":
            env.data.joint(f"{goal[1]}_button").qpos = KNOB_ON_RAD
    mujoco.mj_forward(env.model, env.data)
    for index, goal in enumerate(goal for goal in goals if len(goal) == 3):
        side = (1 - 2 * (index % 2)) if targets.count(goal[2]) > 1 else 0
        _drop(env, goal[1], goal[2], side)
    _wait(env, 15)
    for name in closing:
        joint = _joint(env, name)
        for qpos in np.linspace(joint.qpos[0], CLOSED_DRAWER_M if "cabinet" in name else CLOSED_DOOR_RAD, 20):
            joint.qpos = qpos
            _wait(env, 1)
    return env.success()


def _drop(env, name: str, target: str, side: int) -> None:
    if target in env._env.object_sites_dict:
        site = env.model.site(target)
        turn = env.data.site(target).xmat.reshape(3, 3)
        place = env.data.site(target).xpos - [0, 0, np.abs(turn[2]) @ site.size]
    else:
        place = env.object_pose(target)[0]
    joint, aside = env.data.joint(f"{name}_joint0"), side * np.array(APART_M.get(target, (0, 0)))
    joint.qpos[:3], joint.qvel = place + np.array([*aside, CLEARANCE_M]), 0
    mujoco.mj_forward(env.model, env.data)
    joint.qpos[2] += joint.qpos[2] - _lowest_m(env, name)
    if "rack" in target:
        joint.qpos = [*env.data.site(target).xpos + turn @ RACK_SEAT_M, *LYING]
    mujoco.mj_forward(env.model, env.data)


def _lowest_m(env, name: str) -> float:
    """Return the height in m of an object's lowest point."""
    lowest = np.inf
    for geom in np.flatnonzero((env.model.geom_bodyid == env.object_body(name)) & (env.model.geom_contype > 0)):
        turn, box = env.data.geom_xmat[geom].reshape(3, 3), env.model.geom_aabb[geom]
        lowest = min(lowest, env.data.geom_xpos[geom][2] + turn[2] @ box[:3] - np.abs(turn[2]) @ box[3:])
    return lowest


def _joint(env, name: str):
    """Return the joint of a drawer's region or of a microwave."""
    states = env._env.object_states_dict[name]
    owner = env._env.object_sites_dict[name] if states.object_state_type == "site" else env._env.get_object(name)
    return env.data.joint(owner.joints[0])


def _wait(env, steps: int) -> None:
    for _ in range(steps):
        env.step(np.zeros(7), render=False)
