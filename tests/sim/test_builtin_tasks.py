"""Every task that the built-in assets cover loads, comes to rest, is not complete at first, and can be completed.

By default one of LIBERO's 50 initial states per task is tested; with M2DISTILL_ALL_STATES=1 all of them.
"""

import os

import numpy as np
import pytest
from goals import complete_task
from settling import settle

from m2distill_sim import builtin as builtin_set
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.suites import initial_states

ALL_STATES = os.environ.get("M2DISTILL_ALL_STATES") == "1"
# A packet that overlaps a carton by 4 mm is thrown across the table; with LIBERO's assets as well.
THROWN = {("libero_10", 0): {2, 5, 45}}
# Limits one second after the state was set: overlap, speed, sideways motion (overlapping bowls and plates separate
# first), upward and downward motion, and lean.
DEPTH_M, SPEED_M_S, SHIFT_M, RISE_M, DROP_M, LEAN_RAD = 0.001, 0.02, 0.04, 0.03, 0.17, 0.05


@pytest.mark.parametrize("suite", builtin_set.SUITES)
@pytest.mark.parametrize("task", range(10))
def test_a_task_loads_comes_to_rest_and_can_be_completed(builtin, suite, task):
    states = initial_states(suite, task)
    with LiberoEnv(suite, task, builtin) as env:
        for index in range(50) if ALL_STATES else [5 * task]:
            settled = settle(env, states[index])
            assert not settled.done, index
            if index in THROWN.get((suite, task), ()):
                continue
            assert settled.depth_m < DEPTH_M and settled.speed_m_s < SPEED_M_S, (index, settled)
            assert settled.shift_m < SHIFT_M and settled.lean_rad < LEAN_RAD, (index, settled)
            assert -RISE_M < settled.drop_m < DROP_M, (index, settled)
        env.reset(states[0])
        assert not env.success()
        assert complete_task(env)


def test_the_initial_state_determines_where_furniture_stands(builtin):
    """Furniture is not part of a state, but episodes from the same state must be equal."""
    with LiberoEnv("libero_goal", 0, builtin) as env:
        places = []
        for index in (0, 1, 0):
            env.reset(initial_states("libero_goal", 0)[index])
            places.append(env.data.body("wooden_cabinet_1_main").xpos.copy())
    np.testing.assert_array_equal(places[0], places[2])
    assert not np.array_equal(places[0], places[1])
