import numpy as np
import pytest

from m2distill_policy.errors import UserError
from m2distill_sim.experts import check_expert, make_expert
from m2distill_sim.experts.noise import Disturbance, SmoothNoise
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.suites import HELD_OUT, initial_states

SOUP = initial_states("libero_object", 0)


def run(env, rng, steps=200, disturb=None):
    """Run one episode up to `done`; return its actions and phases."""
    expert = make_expert(env, rng)
    actions, phases = [], []
    for step in range(steps):
        action = expert.act(env)
        actions.append(action)
        phases.append(expert.phase)
        env.step(action if disturb is None else disturb(step, action), render=False)
        if expert.done:
            break
    return np.array(actions), phases


def test_the_expert_solves_held_out_starts_in_about_a_hundred_steps(soup_env):
    for index in HELD_OUT[:2]:
        soup_env.reset(SOUP[index])
        actions, phases = run(soup_env, np.random.default_rng(index))
        assert soup_env.success()
        assert 80 <= len(actions) <= 130
        assert list(dict.fromkeys(phases)) == ["reach", "grasp", "carry", "release"]


@pytest.mark.parametrize("task", [1, 7])  # the flattest and the tallest object
def test_the_expert_solves_flat_and_tall_objects(builtin, task):
    with LiberoEnv("libero_object", task, builtin) as env:
        env.reset(initial_states("libero_object", task)[0])
        run(env, np.random.default_rng(0))
        assert env.success()


def test_the_expert_recovers_from_pushes_and_from_fingers_that_close_too_early(soup_env):
    def disturb(step, action):
        disturbed = action.copy()
        if 10 <= step < 20:
            disturbed[:3] = (0.0, 1.0, 0.5)  # away from the can
        if 14 <= step < 24:
            disturbed[6] = 1.0
        return disturbed

    soup_env.reset(SOUP[40])
    actions, _ = run(soup_env, np.random.default_rng(0), disturb=disturb)
    assert soup_env.success()
    assert len(actions) > 115  # the disturbance costs steps


def test_the_expert_has_no_memory(soup_env):
    """A new expert in the middle of an episode has the intent of the first one, apart from variation."""
    soup_env.reset(SOUP[0])
    expert = make_expert(soup_env, np.random.default_rng(0))
    for step in range(100):
        action = expert.act(soup_env)
        if step % 10 == 0:
            fresh = make_expert(soup_env, np.random.default_rng(step)).act(soup_env)
            np.testing.assert_allclose(fresh, action, atol=0.25)
            assert np.sign(fresh[6]) == np.sign(action[6])
        soup_env.step(action, render=False)


def test_no_action_dimension_is_constant_and_few_are_extreme(soup_env):
    """A mixture density would collapse on a constant dimension."""
    soup_env.reset(SOUP[1])
    actions, _ = run(soup_env, np.random.default_rng(1))
    assert (actions[:, 3:6].std(axis=0) > 0.015).all()
    for side in (actions[:, 6] > 0, actions[:, 6] < 0):
        assert 0.015 < actions[side, 6].std() < 0.06
    assert (np.abs(actions[:, :3]) < 0.99).all()


def test_the_lift_waits_for_the_closing_fingers_and_the_retreat_for_the_opening_ones(soup_env):
    soup_env.reset(SOUP[2])
    actions, _ = run(soup_env, np.random.default_rng(2))
    closing = int(np.argmax(actions[:, 6] > 0))
    lifting = closing + int(np.argmax(actions[closing:, 2] > 0.25))
    assert 8 <= lifting - closing <= 18
    opening = closing + int(np.argmax(actions[closing:, 6] < 0))
    rising = opening + int(np.argmax(actions[opening:, 2] > 0.25))
    assert 6 <= rising - opening <= 18


def test_a_suite_without_an_expert_is_rejected():
    with pytest.raises(UserError, match="no scripted expert for libero_10"):
        check_expert("libero_10")


def test_smooth_noise_has_the_stated_spread_and_correlation():
    noise = SmoothNoise(np.random.default_rng(0), [0.1, 0.3], correlation_steps=5.0)
    values = np.array([noise.step() for _ in range(20000)])
    np.testing.assert_allclose(values.std(axis=0), [0.1, 0.3], rtol=0.06)
    np.testing.assert_allclose(np.corrcoef(values[:-5, 0], values[5:, 0])[0, 1], np.exp(-1), atol=0.05)


def test_disturbed_actions_stay_in_range_and_slips_reverse_the_gripper():
    disturbance = Disturbance(np.random.default_rng(0))
    intent = np.array([0.9, -0.9, 0.0, 0.0, 0.0, 0.0, -0.92])
    executed = np.array([intent + disturbance.step("reach", intent) for _ in range(2000)])
    assert np.abs(executed).max() <= 1.0
    slips = executed[:, 6] > 0
    assert 0.02 < slips.mean() < 0.12 and np.isin(executed[:, 6].round(6), (-0.92, 0.92)).all()
    released = np.array([disturbance.step("release", intent) for _ in range(2000)])
    assert np.abs(released[50:, :3]).max() < 0.5  # no pushes during the release
