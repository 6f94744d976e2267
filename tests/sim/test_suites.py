import io
import os
import pickle

import numpy as np
import pytest

from m2distill_policy.errors import UserError
from m2distill_sim import suites


def test_tasks_are_in_benchmark_order():
    names = [task.name for task in suites.suites()["libero_object"]]
    assert len(names) == 10
    assert names[0] == "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
    assert names[1] == "pick_up_the_cream_cheese_and_place_it_in_the_basket"


def test_instructions_are_liberos():
    assert suites.find_task("libero_object", 7).instruction == "pick up the milk and place it in the basket"
    # The names of their scenes are not part of these two.
    assert suites.find_task("libero_10", 8).instruction == "put both moka pots on the stove"
    assert suites.find_task("libero_90", 0).instruction == "close the top drawer of the cabinet"  # SCENE10


@pytest.mark.parametrize("suite", ["libero_object", "libero_goal", "libero_spatial", "libero_10"])
def test_every_task_has_fifty_initial_states_and_a_bddl_file(suite):
    for task in suites.suites()[suite]:
        states = suites.initial_states(suite, task.index)
        assert states.shape[0] == 50 and states.dtype == np.float64 and np.isfinite(states).all()
        assert task.bddl_file.is_file()


def test_demonstrations_and_reports_share_no_initial_state():
    assert not set(suites.DEMO_STATES) & set(suites.HELD_OUT)
    assert set(suites.DEMO_STATES) | set(suites.HELD_OUT) == set(range(50))


@pytest.mark.parametrize(
    "suite, task, message",
    [
        ("libero_objects", 0, "unknown suite 'libero_objects'; did you mean 'libero_object'"),
        ("libero_object", 10, "no task 10 (allowed: 0 to 9)"),
        ("libero_object", -1, "no task -1"),
        ("libero_object", "pick_up_the_mlik_and_place_it_in_the_basket", "did you mean 'pick_up_the_milk_"),
    ],
)
def test_unknown_names_are_reported_in_one_line(suite, task, message):
    with pytest.raises(UserError) as error:
        suites.find_task(suite, task)
    assert message in str(error.value)


def test_initial_states_that_are_not_arrays_are_rejected():
    with pytest.raises(pickle.UnpicklingError, match="system"):
        suites._ArrayUnpickler(io.BytesIO(pickle.dumps(os.system))).load()
