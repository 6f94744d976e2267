"""Our controller gives the bits of robosuite's, which costs several times as much."""

import numpy as np
import pytest

from m2distill_sim.arm_env import SETTLE_STEPS
from m2distill_sim.env_factory import make_env
from m2distill_sim.renderer import mujoco
from m2distill_sim.suites import initial_states

STEPS = 30


class CurrentSim:
    """Simulator as robosuite's controller accesses it, with the forward pass left to mj_step1."""

    def __init__(self, sim):
        self.model, self.data = sim.model, sim.data

    def forward(self):
        pass


def robosuites_step(env, action):
    for substep in range(25):
        mujoco.mj_step1(env.model, env.data)
        env._robot.control(action, policy_step=substep == 0)
        mujoco.mj_step2(env.model, env.data)
    env._after_step()


def actions(closing: float) -> np.ndarray:
    """Down, with turns, and with the gripper in both directions."""
    steps = np.cumsum(np.random.default_rng(0).normal(0, 0.2, (STEPS, 7)), axis=0).clip(-1.2, 1.2)
    steps[:, 2] -= 0.5
    steps[:, 3:6] *= np.arange(STEPS)[:, None] % 3 > 0  # robosuite keeps the old orientation where none is commanded
    steps[:, 6] = np.where(np.arange(STEPS) < STEPS // 2, -closing, closing)
    return steps


@pytest.mark.parametrize(("suite", "closing"), [("libero_object", 1.0), ("robosuite", 0.3)])
def test_states_and_images_have_the_bits_of_robosuites_controller(suite, closing, soup_env):
    state = initial_states(suite, 0)[2]
    env = soup_env if suite == "libero_object" else make_env(suite, 0, cameras={"wrist": (16, 16)})
    ours = []
    for action in (env.reset(state), *actions(closing))[1:]:
        last = env.step(action)
        ours.append(env.state())
    env.reset(state, settle_steps=0)
    env._robot.controller.sim = CurrentSim(env._sim)
    env._robot.controller.update(force=True)
    for _ in range(SETTLE_STEPS):
        robosuites_step(env, np.zeros(7))
    for action, expected in zip(actions(closing), ours, strict=True):
        robosuites_step(env, action)
        np.testing.assert_array_equal(env.state(), expected)
    seen = env.observe()
    assert all(np.array_equal(seen.images[name], image) for name, image in last.images.items())
    np.testing.assert_array_equal(seen.ee_quat_xyzw, last.ee_quat_xyzw)
    if suite == "robosuite":
        env.close()
