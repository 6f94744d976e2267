"""The policy's side of lockstep, with the test as the simulator: one answer for each complete set of one stamp."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from harness import KNOWN, Client, ask, moving, policy_node

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses

PERIOD_NS = 50_000_000


@pytest.fixture(scope="module")
def node(checkpoint_path, tmp_path_factory) -> Iterator[NodeProcesses]:
    description = policy_node(checkpoint_path, autostart=True, pacing="lockstep", sampling="mode", watchdog_s=600.0)
    with NodeProcesses([description], tmp_path_factory.mktemp("log")) as nodes:
        yield nodes
        nodes.check()


@pytest.fixture
def simulator(client, node) -> Client:
    client.wait_until_active()
    client.instruct(KNOWN[0])
    client.wait_for_state(PolicyStatus.HOLDING, "waiting for the next observation")
    yield client
    client.instruct("")
    client.wait_for_state(PolicyStatus.IDLE)


def test_an_incomplete_set_is_not_answered(simulator):
    stamp_ns = 1_000_000_000
    simulator.sizes["wrist"] = 0
    simulator.sense(stamp_ns)
    simulator.sizes["wrist"] = 64
    action = ask(simulator, stamp_ns + PERIOD_NS, 1)
    assert simulator.of("policy/action") == [action]


def test_a_repeated_set_gets_the_same_command_again_and_no_second_step(simulator):
    first_ns = 2_000_000_000
    answer = ask(simulator, first_ns, 1)
    asked = itertools.count()
    simulator.sensors.callback = lambda: (next(asked), simulator.sense(first_ns))
    simulator.sensors.reset()
    simulator.wait(lambda: len(moving(simulator)) >= 2, "the command once more")
    simulator.sensors.cancel()
    assert next(asked) > 3, "a repetition that crosses with its answer must not be answered"
    first, again = moving(simulator)[:2]
    assert first == again
    assert simulator.of("policy/action") == [answer]


def test_a_missing_step_starts_a_new_history(simulator):
    start_ns = 4_000_000_000
    one = ask(simulator, start_ns, 10)
    two = ask(simulator, start_ns + PERIOD_NS, 200)
    one_after_gap = ask(simulator, start_ns + 5 * PERIOD_NS, 10)
    two_after_gap = ask(simulator, start_ns + 6 * PERIOD_NS, 200)
    np.testing.assert_array_equal(one_after_gap.action, one.action)
    np.testing.assert_array_equal(two_after_gap.action, two.action)
    assert not np.array_equal(ask(simulator, start_ns + 7 * PERIOD_NS, 10).action, one.action)


def test_no_image_of_480_px_is_lost(simulator):
    """Each is larger than Fast DDS's default shared-memory segment: the shipped profile prevents losses."""
    simulator.sizes = dict.fromkeys(simulator.sizes, 480)
    for step in range(10):
        ask(simulator, 9_000_000_000 + step * PERIOD_NS, step)
