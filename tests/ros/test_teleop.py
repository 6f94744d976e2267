"""The teleop node as a process: motion, takeover during a run of the policy, and release."""

from collections.abc import Iterator

import numpy as np
import pytest
from harness import KNOWN, policy_node
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeDescription, NodeProcesses
from m2distill_policy.ros.common.conversions import twist_to_numpy

STILL, FORWARD = [0.0] * 6, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
FREE, HELD = [0] * 6, [0, 0, 0, 0, 1, 0]


@pytest.fixture(scope="module")
def nodes(checkpoint_path, tmp_path_factory) -> Iterator[NodeProcesses]:
    teleop = NodeDescription("m2distill_policy", "teleop_node", "teleop", "", {"joy_timeout_s": 1.0})
    with NodeProcesses([policy_node(checkpoint_path), teleop], tmp_path_factory.mktemp("log")) as nodes:
        yield nodes
        nodes.check()


@pytest.fixture
def operator(client, nodes):
    """Client with a joystick that publishes `client.stick` at 20 Hz; None: no messages."""
    client.stick = None
    client.active: list[bool] = []
    joy_pub = client.create_publisher(Joy, "joy", QoSProfile(depth=10))
    client.create_subscription(Bool, "operator_active", lambda m: client.active.append(m.data), 10)
    client.sent_joy = 0

    def speak() -> None:
        if client.stick is not None:
            joy_pub.publish(Joy(axes=client.stick[0], buttons=client.stick[1]))
            client.sent_joy += 1

    client.create_timer(0.05, speak)
    client.wait(joy_pub.get_subscription_count, "the teleop node", 90.0)
    yield client
    client.stick = None
    client.wait(lambda: not client.active or not client.active[-1], "the release of the deadman")


def twists(client, since: int = 0) -> list[np.ndarray]:
    return [np.concatenate(twist_to_numpy(t)) for t in client.of("twist_cmd")[since:]]


def test_the_arm_follows_the_stick_while_the_deadman_is_held_and_stops_when_it_is_not(operator):
    operator.stick = (FORWARD, FREE)
    operator.wait(lambda: operator.count_publishers("twist_cmd"), "the node")
    operator.stick = (FORWARD, HELD)
    operator.wait(lambda: len(twists(operator)) >= 3, "motion")
    assert all(t.tolist() == pytest.approx([0.1, 0, 0, 0, 0, 0]) for t in twists(operator))
    assert operator.active[0] and all(operator.active)
    assert operator.of("gripper_cmd")[-1].data == pytest.approx(0.08)
    operator.stick = (FORWARD, FREE)
    operator.wait(lambda: not operator.active[-1], "the release")
    operator.wait(lambda: not twists(operator)[-1].any(), "the zero velocity")
    moved = len(twists(operator))
    sent_joy = operator.sent_joy
    operator.wait(lambda: operator.sent_joy >= sent_joy + 5, "more joystick messages")
    assert len(twists(operator)) == moved  # one zero, and no more


def test_a_silent_joystick_releases_the_deadman(operator):
    operator.stick = (FORWARD, HELD)
    operator.wait(lambda: twists(operator) and twists(operator)[-1].any(), "motion")
    operator.stick = None
    operator.wait(lambda: not twists(operator)[-1].any(), "the zero velocity", 5.0)
    operator.wait(lambda: not operator.active[-1], "the release")


def test_the_policy_pauses_at_once_and_continues_only_on_request(operator):
    operator.start()
    operator.instruct(KNOWN[0])
    operator.wait_for_state(PolicyStatus.RUNNING)
    operator.stick = (FORWARD, HELD)
    operator.wait_for_state(PolicyStatus.OPERATOR, "the operator has taken over")
    acted = len(operator.of("policy/action"))
    begun = len(operator.of("twist_cmd"))
    operator.wait(lambda: len(operator.of("twist_cmd")) >= begun + 10, "the operator's commands")
    assert len(operator.of("policy/action")) == acted  # the policy sent nothing meanwhile
    commands = [t for t in twists(operator, begun + 1) if t.any()]  # topics have no common order: the policy's last
    assert len(twists(operator, begun + 1)) - len(commands) <= 1  # command, or its zero, may cross with the operator's
    assert all(t.tolist() == pytest.approx([0.1, 0, 0, 0, 0, 0]) for t in commands)
    operator.stick = (STILL, FREE)
    operator.wait(lambda: not operator.active[-1], "the release")
    operator.wait_for_state(PolicyStatus.PAUSED, "the operator has released the arm")
    assert operator.call("start").success
    operator.wait_for_state(PolicyStatus.RUNNING)


def test_parameters_read_at_startup_cannot_be_set_later(operator):
    teleop = AsyncParameterClient(operator, "teleop")
    operator.wait(teleop.services_are_ready, "the parameter services", 90.0)
    answer = operator.result(teleop.set_parameters([Parameter("linear_m_s", value=0.5)]), "a parameter")
    assert answer.results[0].reason == "linear_m_s: it is read at startup only; start the node again with the new value"
