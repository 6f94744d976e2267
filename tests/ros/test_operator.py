"""The scripted expert as driver: it controls the simulator through the command topics only."""

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from std_msgs.msg import Bool, UInt32
from std_srvs.srv import Trigger

from m2distill_policy.bringup.processes import NodeDescription, NodeProcesses
from m2distill_policy.ros.common.conversions import stamp_to_ns

LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
LIMIT_S = 240.0


@pytest.mark.parametrize("disturbed", [False, True])
def test_the_expert_solves_the_task_through_the_command_topics(ros, tmp_path, disturbed):
    """The expert succeeds from this state, answers every observation, and is active until the task is done."""
    sim = NodeDescription(
        "m2distill_sim",
        "sim_node",
        "sim",
        "",
        {"assets": "builtin", "image_size_px": 16, "pacing": "lockstep", "step_limit": 300, "initial_state": 0},
    )
    node, spinner = Node("listener"), SingleThreadedExecutor()
    spinner.add_node(node)
    twists, active, steps, success = [], [], [], []
    node.create_subscription(TwistStamped, "twist_cmd", twists.append, 1000)
    node.create_subscription(Bool, "operator_active", lambda m: active.append(m.data), 1000)
    node.create_subscription(Bool, "sim/success", lambda m: success.append(m.data), LATCHED)
    node.create_subscription(UInt32, "sim/steps", lambda m: steps.append(m.data), LATCHED)
    deadline = node.get_clock().now().nanoseconds + LIMIT_S * 1e9
    parameters, reset = AsyncParameterClient(node, "sim"), node.create_client(Trigger, "sim/reset")

    def is_ready() -> bool:
        return bool(success and parameters.services_are_ready() and reset.service_is_ready())

    with NodeProcesses([sim], tmp_path) as nodes:
        while not is_ready():  # commands before the discovery of this client would not be received
            spinner.spin_once(timeout_sec=0.1)
            nodes.check()
            assert node.get_clock().now().nanoseconds < deadline, "no simulator in time"
        chosen = [Parameter("driver", value="expert"), Parameter("disturbed", value=disturbed)]
        for answer in (parameters.set_parameters(chosen), reset.call_async(Trigger.Request())):
            spinner.spin_until_future_complete(answer, timeout_sec=LIMIT_S)
        while not (success and success[-1] and steps and active and not active[-1]):
            spinner.spin_once(timeout_sec=0.1)
            nodes.check()
            assert node.get_clock().now().nanoseconds < deadline, "no success in time"
    node.destroy_node()
    assert 50 < steps[-1] < 250
    assert True in active and not any(active[active.index(False) :])
    stamps = [stamp_to_ns(t.header.stamp) for t in twists]
    assert set(np.diff(sorted(set(stamps)))) == {50_000_000}
