"""Skills beyond picking from the floor, on the built-in assets. docs/sim.md lists their success over all states."""

import numpy as np
import pytest

from m2distill_sim.experts import make_expert
from m2distill_sim.experts.motion import POINTING_DOWN, finger_direction, hand_at_yaw, hand_yaw, tilted_hand, yaw_of
from m2distill_sim.experts.noise import Disturbance
from m2distill_sim.experts.scene import Scene
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.suites import initial_states


def run(env, seed, disturbed=False):
    """Run one episode; return its actions, its phases and the expert."""
    rng = np.random.default_rng(seed)
    expert, disturbance = make_expert(env, rng), Disturbance(rng)
    actions, phases = [], []
    while not expert.done and len(actions) < expert.max_steps:
        action = expert.act(env)
        env.step(action + disturbance.step(expert.phase, action) if disturbed else action, render=False)
        actions.append(action)
        phases.append(expert.phase)
    return np.array(actions), phases, expert


@pytest.mark.parametrize(
    "suite, task, skill",
    [
        ("libero_goal", 0, "open a drawer"),
        ("libero_goal", 3, "open a drawer and place a bowl inside"),
        ("libero_goal", 5, "push a plate"),
        ("libero_goal", 6, "place a packet in a bowl"),
        ("libero_goal", 7, "turn a knob"),
        ("libero_goal", 9, "lay a bottle on a rack"),
        ("libero_spatial", 4, "take a bowl out of a drawer"),
    ],
)
def test_a_skill_completes_its_task(builtin, suite, task, skill):
    with LiberoEnv(suite, task, builtin) as env:
        env.reset(initial_states(suite, task)[0])
        actions, _, expert = run(env, seed=0)
        assert expert.done, skill
        assert env.success(), skill
        assert (actions.std(axis=0) > 0.015).all()  # a mixture density would collapse on a constant dimension


@pytest.fixture(scope="module")
def bowl_env(builtin):
    """LIBERO-SPATIAL task 2: place the bowl on the plate."""
    with LiberoEnv("libero_spatial", 2, builtin) as env:
        yield env


def test_bowl_reaches_the_plate_despite_disturbances(bowl_env):
    bowl_env.reset(initial_states("libero_spatial", 2)[40])
    _, phases, expert = run(bowl_env, seed=4, disturbed=True)
    assert expert.done and bowl_env.success()
    assert set(phases) == {"reach", "grasp", "carry", "release"}


def test_seeds_differ_in_path_speed_and_grasp(bowl_env):
    """The number of steps and the yaw at the grasp differ by more than the small variation of every step."""
    lengths, yaws = [], []
    for seed in range(3):
        bowl_env.reset(initial_states("libero_spatial", 2)[0])
        expert = make_expert(bowl_env, np.random.default_rng(seed))
        steps = 0
        while expert.phase != "carry":
            bowl_env.step(expert.act(bowl_env), render=False)
            steps += 1
        lengths.append(steps)
        yaws.append(yaw_of(Scene(bowl_env).orientation))
    assert len(set(lengths)) > 1
    assert np.ptp(yaws) > 0.02


def test_dropped_bowl_is_picked_up_again(bowl_env):
    bowl_env.reset(initial_states("libero_spatial", 2)[1])
    expert = make_expert(bowl_env, np.random.default_rng(0))
    scene, opened = Scene(bowl_env), 0
    while not expert.done and opened < 400:
        action = expert.act(bowl_env)
        scene.update()
        lifted = scene.bounds("akita_black_bowl_1").low[2] > 0.925
        if opened or lifted:
            opened += 1
        if 0 < opened < 8:
            action[6] = -1.0
        bowl_env.step(action, render=False)
    assert opened > 20 and bowl_env.success()


def test_max_height_is_that_of_the_highest_object_in_a_rectangle(bowl_env):
    """LIBERO's table top is at 0.90 m, and the cabinet is 0.223 m high. The rectangle rotates with its frame."""
    bowl_env.reset(initial_states("libero_spatial", 2)[0])
    scene = Scene(bowl_env)
    cabinet = scene.centre_of("wooden_cabinet_1_top_side")
    assert scene.max_height(cabinet, 0.0, (-0.05, -0.05), (0.05, 0.05)) == pytest.approx(1.128, abs=0.003)
    bowl = scene.bounds("akita_black_bowl_1")
    beside = bowl.centre[:2] - np.array([0.0, 0.07])  # the bowl's rim is 0.053 m from its middle
    assert scene.max_height(beside, 0.0, (-0.01, -0.01), (0.01, 0.01)) == pytest.approx(0.90, abs=0.003)
    assert scene.max_height(beside, 0.0, (-0.01, -0.01), (0.01, 0.05)) == pytest.approx(bowl.high[2], abs=0.001)
    assert scene.max_height(beside, np.pi, (-0.01, -0.01), (0.01, 0.05)) == pytest.approx(0.90, abs=0.003)
    without = scene.max_height(beside, 0.0, (-0.01, -0.01), (0.01, 0.05), ignore="akita_black_bowl_1")
    assert without == pytest.approx(0.90, abs=0.003)


def test_hand_orientations_stay_within_the_joint_limits():
    assert hand_yaw(np.array([0.0, 1.0])) == pytest.approx(0.0)
    assert hand_yaw(np.array([0.0, -1.0])) == pytest.approx(0.0)  # fingers open both ways
    assert hand_yaw(np.array([1.0, 0.0])) == pytest.approx(np.pi / 2)  # not -90 degrees
    fingers = hand_at_yaw(0.4).apply([0.0, 1.0, 0.0])
    np.testing.assert_allclose(np.abs(fingers @ [-np.sin(0.4), np.cos(0.4), 0.0]), 1.0)
    assert yaw_of(hand_at_yaw(0.4)) == pytest.approx(0.4)
    np.testing.assert_allclose(finger_direction(POINTING_DOWN), [0, 0, -1], atol=1e-12)
    forward = np.array([0.0, -1.0])
    np.testing.assert_allclose(finger_direction(tilted_hand(forward, np.pi / 2, forward)), [0, -1, 0], atol=1e-12)
