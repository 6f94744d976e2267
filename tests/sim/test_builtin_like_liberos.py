"""Comparison of the built-in assets with LIBERO's: names, joints, sites and regions are equal, sizes are similar.

The tests need LIBERO's assets. Sizes and resting positions are so close that predicates have the same meaning.
"""

import mujoco
import numpy as np
import pytest

from m2distill_sim.builtin import SUITES
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.suites import initial_states

SIZE_M, REST_M = 0.008, 0.010
# Resting positions that differ: the bowl stands upright on the ramekin's rim, while LIBERO's leans beside it.
ELSEWHERE = {("libero_spatial", 5): {"akita_black_bowl_1"}}
ROBOT = ("robot0_", "gripper0_", "mount0_")


@pytest.fixture(scope="module")
def pair(request, builtin, real_assets):
    suite, task = request.param
    with LiberoEnv(suite, task, builtin) as ours, LiberoEnv(suite, task, real_assets) as theirs:
        for env in (ours, theirs):
            env.reset(initial_states(suite, task)[0], settle_steps=0)
        yield suite, task, ours, theirs


TASKS = [pytest.param((suite, task), id=f"{suite}-{task}") for suite in SUITES for task in range(10)]


@pytest.mark.parametrize("pair", TASKS, indirect=True)
def test_a_builtin_scene_matches_liberos(pair):
    suite, task, ours, theirs = pair
    for kind in ("nbody", "njnt", "nq", "nv"):
        assert getattr(ours.model, kind) == getattr(theirs.model, kind), kind
    for index in range(ours.model.nbody):
        mine, real = ours.model.body(index), theirs.model.body(index)
        assert mine.name == real.name
        if not mine.name.startswith(ROBOT):
            np.testing.assert_allclose(_extent(ours, index), _extent(theirs, index), atol=SIZE_M, err_msg=mine.name)
    for index in range(ours.model.njnt):
        mine, real = ours.model.joint(index), theirs.model.joint(index)
        assert (mine.name, mine.type, mine.qposadr) == (real.name, real.type, real.qposadr)
        np.testing.assert_allclose(
            [*mine.range, *mine.axis, *mine.damping], [*real.range, *real.axis, *real.damping], err_msg=mine.name
        )
    assert _sites(ours).keys() == _sites(theirs).keys()
    for name, numbers in _sites(ours).items():
        np.testing.assert_allclose(numbers, _sites(theirs)[name], atol=1e-4, err_msg=name)
    _compare_rest(suite, task, ours, theirs)


def _compare_rest(suite, task, ours, theirs) -> None:
    for env in (ours, theirs):
        env.reset(initial_states(suite, task)[0], settle_steps=30)
    for name in set(ours.object_names) - ELSEWHERE.get((suite, task), set()):
        np.testing.assert_allclose(ours.object_pose(name)[0], theirs.object_pose(name)[0], atol=REST_M, err_msg=name)


def _sites(env) -> dict[str, np.ndarray]:
    """Return name -> position, orientation and size of every site."""
    model = env.model
    return {
        model.site(index).name: np.concatenate([model.site_pos[index], model.site_quat[index], model.site_size[index]])
        for index in range(model.nsite)
    }


def _extent(env, body: int) -> np.ndarray:
    """Return the lower and upper corner (2, 3) in m around a body's collision geoms, in its frame; else zeros."""
    model, corners = env.model, []
    for geom in np.flatnonzero((model.geom_bodyid == body) & (model.geom_contype + model.geom_conaffinity > 0)):
        if model.geom_type[geom] == 0:  # a plane
            continue
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
        turn, box = turn.reshape(3, 3), model.geom_aabb[geom]
        centre, half = model.geom_pos[geom] + turn @ box[:3], np.abs(turn) @ box[3:]
        corners += [centre - half, centre + half]
    return np.array([np.min(corners, axis=0), np.max(corners, axis=0)]) if corners else np.zeros((2, 3))
