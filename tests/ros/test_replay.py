"""Equal inputs in lockstep give equal actions."""

import numpy as np
from harness import KNOWN, ask, policy_node
from lifecycle_msgs.msg import Transition

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses

PERIOD_NS = 50_000_000


def test_after_an_activation_the_same_inputs_give_the_same_samples(client, checkpoint_path, tmp_path):
    """The random generator restarts at every activation, so that a replay in lockstep gives the same actions."""
    description = policy_node(checkpoint_path, pacing="lockstep", sampling="stochastic", seed=3, watchdog_s=600.0)
    with NodeProcesses([description], tmp_path):
        runs = []
        for _ in range(2):
            client.received.clear()
            client.start()
            client.sensors.cancel()
            client.instruct(KNOWN[0])
            client.wait_for_state(PolicyStatus.HOLDING, "waiting for the next observation")
            runs.append([ask(client, 1_000_000_000 + step * PERIOD_NS, step).action for step in range(4)])
            assert client.transition(Transition.TRANSITION_DEACTIVATE)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0][0], runs[0][1])
