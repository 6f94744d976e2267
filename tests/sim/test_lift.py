"""robosuite's Lift has the interface of LiberoEnv."""

import gc
import weakref

import numpy as np
import pytest

from m2distill_policy.errors import UserError
from m2distill_sim import lift
from m2distill_sim.env_factory import make_env
from m2distill_sim.lift_env import LiftEnv
from m2distill_sim.suites import HELD_OUT, assets_of, find_task, initial_states

TASK = find_task("robosuite", "lift")
STATES = initial_states("robosuite", 0)


@pytest.fixture(scope="module")
def env():
    with make_env("robosuite", 0, cameras={"agentview": (32, 32), "wrist": (32, 32)}) as env:
        assert isinstance(env, LiftEnv)
        yield env


def test_fifty_initial_states_hold_the_cube_near_the_middle_of_the_table():
    assert TASK.instruction == "lift the red cube"
    assert STATES.shape == (50, 32) and len(np.unique(STATES, axis=0)) == 50
    assert np.abs(STATES[:, 10:12]).max() <= 0.03 and STATES[:, 10:12].std(0).min() > 0.012  # 0.06 / sqrt(12) = 0.017
    np.testing.assert_allclose(np.linalg.norm(STATES[:, 13:17], axis=1), 1)
    with pytest.raises(ValueError, match="read-only"):
        STATES[0, 0] = 1
    with pytest.raises(UserError, match="robosuite has no task 1"):
        make_env("robosuite", 1)


def test_initial_states_have_robosuites_distribution(env):
    """Means agree, and the same components are constant."""
    drawn = []
    for seed in range(20):
        env.reset(None, seed, settle_steps=0)
        drawn.append(env.state())
    drawn = np.array(drawn)
    np.testing.assert_allclose(drawn.mean(0)[1:13], STATES.mean(0)[1:13], atol=0.02)
    np.testing.assert_array_equal(drawn.std(0) < 1e-9, STATES.std(0) < 1e-9)


def test_observations_and_goal(env):
    observation = env.reset(STATES[HELD_OUT[0]])
    assert {name: image.shape for name, image in observation.images.items()} == {
        "agentview": (32, 32, 3),
        "wrist": (32, 32, 3),
    }
    assert observation.joint_positions.shape == (7,) and observation.gripper_positions.shape == (2,)
    wrist = observation.images["wrist"].astype(int)
    assert (wrist[..., 0] > 2 * wrist[..., 1]).sum() > 10  # the wrist camera views a red cube
    assert not env.success()
    for height_m, expected in ((0.03, False), (0.05, True)):
        state = STATES[HELD_OUT[0]].copy()
        state[12] = 0.8 + height_m
        env.reset(state, settle_steps=0)
        assert env.success() is expected


def test_a_closed_environment_frees_its_simulator_without_a_garbage_collection(builtin):
    """The model of one task takes tens of MB, so memory must not depend on when the collector runs."""
    gc.disable()
    try:
        for suite in ("robosuite", "libero_object"):
            env = make_env(suite, 0, builtin, {"agentview": (16, 16)})
            env.reset()
            freed = [weakref.ref(part) for part in (env._env, env._sim, env._robot, env._env.model)]
            env.close()
            env.close()
            assert [part() for part in freed] == [None] * 4, suite
    finally:
        gc.enable()


def test_the_assets_are_robosuites_for_any_requested_source():
    assert assets_of("robosuite", "builtin") == assets_of("robosuite") == lift.assets()
    assert lift.assets().label.startswith("robosuite-1.4")
