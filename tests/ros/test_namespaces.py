"""Two simulated robots in two namespaces of one domain, each with its own time."""

import contextlib

import pytest
from harness import START_LIMIT_S, Client
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from m2distill_interfaces.msg import PolicyAction, PolicyStatus
from m2distill_policy.bringup.launch_config import SystemLaunchConfig
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.bringup.system import system_nodes
from m2distill_policy.ros.common.conversions import stamp_to_ns

STEPS, PERIOD_NS, START_NS = 15, 50_000_000, 2_000_000_000  # a simulator's first episode starts at 1 s + 1 s


class Side:
    """What a client receives from one of the robots."""

    def __init__(self, client: Client, name: str):
        self.name, self.status = name, None
        self.clock_ns: list[int] = []
        self.acted_ns: list[int] = []
        client.create_subscription(Clock, f"/{name}/clock", lambda m: self.clock_ns.append(stamp_to_ns(m.clock)), 100)
        client.create_subscription(
            PolicyAction, f"/{name}/policy/action", lambda m: self.acted_ns.append(stamp_to_ns(m.header.stamp)), 100
        )
        client.create_subscription(PolicyStatus, f"/{name}/policy/status", self._on_status, 10)
        self.instruction_pub = client.create_publisher(String, f"/{name}/instruction", 10)

    def _on_status(self, status: PolicyStatus) -> None:
        self.status = status


@pytest.mark.sim
def test_two_simulated_robots_in_two_namespaces_run_side_by_side(client, checkpoint_path, tmp_path):
    client.leave_sensors_to_the_simulator()
    names = ("left", "right")
    sides = [Side(client, name) for name in names]
    with contextlib.ExitStack() as running:
        nodes = []
        for name in names:
            config = SystemLaunchConfig(
                namespace=name, checkpoint=str(checkpoint_path), pacing="lockstep", assets="builtin", image_size_px=64
            )
            nodes.append(running.enter_context(NodeProcesses(system_nodes(config), tmp_path / name)))
            side = sides[len(nodes) - 1]
            client.wait(
                lambda side=side: side.instruction_pub.get_subscription_count() and side.clock_ns, name, START_LIMIT_S
            )
        for begun, side in enumerate(sides, 1):  # the right one later, so that their times differ
            client.wait(
                lambda side=side: (
                    side.instruction_pub.publish(String(data="wave"))
                    or (side.status and side.status.state == PolicyStatus.RUNNING)
                ),
                f"{side.name} to run",
                START_LIMIT_S,
            )
            client.wait(
                lambda side=side, n=begun: len(side.acted_ns) >= n * STEPS, f"steps of {side.name}", START_LIMIT_S
            )
        for side in sides:
            assert side.acted_ns == sorted(set(side.acted_ns)), "a step was repeated or skipped"
            assert side.acted_ns[-1] - side.acted_ns[0] == (len(side.acted_ns) - 1) * PERIOD_NS
            assert side.clock_ns == sorted(side.clock_ns) and set(side.acted_ns) <= {*side.clock_ns}
            assert side.status.state == PolicyStatus.RUNNING
        assert client.count_publishers("/clock") == 0
        for started in nodes:
            started.check()
