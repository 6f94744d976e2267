"""A policy on another host than the robot: it acts over a good network, and holds with the reason over a bad one."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from harness import policy_node
from two_hosts import RemotePolicy, TwoHosts, why_not

from m2distill_policy.bringup.processes import command_line

REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.fixture(scope="module")
def hosts():
    with TwoHosts() as hosts:
        yield hosts


@pytest.fixture(scope="module")
def folder():
    """A folder on disk: each host has a /dev/shm of its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def remote(hosts, checkpoint_path, folder):
    """The limits are those of an arm that nobody has described."""
    checkpoint = shutil.copytree(checkpoint_path, folder / "checkpoint")
    policy = command_line(policy_node(checkpoint, autostart=True, max_age_s=0.12, watchdog_s=0.25))
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, (os.path.dirname(__file__), os.environ.get("PYTHONPATH"))))}
    with RemotePolicy(hosts, policy, folder, (), variables, "peers") as remote:
        yield remote


def test_a_policy_on_another_host_acts_and_its_delay_is_that_of_the_network(hosts, remote):
    hosts.set_cable(delay_ms=5)
    remote.ask("run")
    measured = remote.ask("measure", 2)
    assert measured["periods"] >= 20 and measured["missed"] < measured["periods"] / 2
    assert measured["median_ms"] >= 10  # there and back


@pytest.mark.parametrize(
    ("cable", "reason"),
    [
        ({"delay_ms": 400}, "newest is older than 120 ms"),
        ({"loss_percent": 100}, "silent for more than 0.25 s"),
    ],
)
def test_a_delay_or_a_loss_beyond_the_limits_holds_the_arm_with_the_reason(hosts, remote, cable, reason):
    """What the robot sends is late or lost; the policy's status arrives."""
    hosts.set_cable(delay_ms=1)
    remote.ask("run")
    hosts.set_cable(**cable, sides=("robot",))
    assert reason in remote.ask("hold", reason)["reason"]
    hosts.set_cable()
    remote.ask("run")
