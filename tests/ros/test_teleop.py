"""The teleop node as a process: motion, takeover during a run of the policy, and release."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from harness import KNOWN, policy_node
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import QoSProfile
from recorder_client import Recorder, recorder_node
from sensor_msgs.msg import Joy, JoyFeedback
from std_msgs.msg import Bool, Float64

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeDescription, NodeProcesses, environment
from m2distill_policy.ros.common.conversions import twist_to_numpy
from m2distill_policy.ros.common.topic_checks import DISCOVERY_S
from m2distill_policy.ros.policy import gripper

STILL, FORWARD = [0.0] * 6, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
FREE, HELD = [0] * 6, [0, 0, 0, 0, 1, 0]
OPEN, CLOSE = [0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 1, 0]


@pytest.fixture(scope="module")
def nodes(checkpoint_path, tmp_path_factory) -> Iterator[NodeProcesses]:
    teleop = NodeDescription("m2distill_policy", "teleop_node", "teleop", "", {"joy_timeout_s": 1.0})
    with NodeProcesses([policy_node(checkpoint_path), teleop], tmp_path_factory.mktemp("log")) as nodes:
        yield nodes
        nodes.check()


@pytest.fixture
def operator(client, nodes):
    give_joystick(client)
    yield client
    client.stick = None
    client.wait(lambda: not client.active or not client.active[-1], "the release of the deadman")


def give_joystick(client) -> None:
    """Publish `client.stick` at 20 Hz; None: no messages.

    A client has one joystick: messages of two have no common order, so a button would be pressed twice.
    """
    client.stick = None
    client.joy_stamp = Time  # none
    client.active: list[bool] = []
    client.sent_joy = 0
    if not hasattr(client, "joy_pub"):
        client.joy_pub = client.create_publisher(Joy, "joy", QoSProfile(depth=10))
        client.create_subscription(Bool, "operator_active", lambda m: client.active.append(m.data), 10)
        client.create_timer(0.05, lambda: speak(client))
    client.wait(client.joy_pub.get_subscription_count, "the teleop node", 90.0)


def speak(client) -> None:
    if client.stick is not None:
        joy = Joy(axes=client.stick[0], buttons=client.stick[1])
        joy.header.stamp = client.joy_stamp()
        client.joy_pub.publish(joy)
        client.sent_joy += 1


def twists(client, since: int = 0) -> list[np.ndarray]:
    return [np.concatenate(twist_to_numpy(t)) for t in client.of("twist_cmd")[since:]]


def test_the_arm_follows_the_stick_while_the_deadman_is_held_and_stops_when_it_is_not(operator):
    operator.stick = (FORWARD, FREE)
    operator.wait(lambda: operator.count_publishers("twist_cmd"), "the node")
    operator.stick = (FORWARD, HELD)
    operator.wait(lambda: len(twists(operator)) >= 3, "motion")
    assert all(t.tolist() == pytest.approx([0.1, 0, 0, 0, 0, 0]) for t in twists(operator))
    assert operator.active[0] and all(operator.active)
    assert operator.of("gripper_cmd") == []  # the deadman alone leaves the gripper as it is
    operator.stick = (FORWARD, OPEN)
    assert operator.wait(lambda: operator.of("gripper_cmd"), "the gripper")[-1].data == pytest.approx(0.08)
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


def test_a_takeover_continues_what_the_gripper_does(operator):
    gripper_pub = operator.create_publisher(Float64, "gripper_cmd", 10)
    operator.wait(lambda: gripper_pub.get_subscription_count() >= 2, "the teleop node and this one")

    def commands_of_a_takeover() -> set[float]:
        operator.received.clear()
        gripper_pub.publish(Float64(data=0.011))
        operator.wait(lambda: 0.011 in {m.data for m in operator.of("gripper_cmd")}, "this node's message")
        operator.received.clear()  # with commands of the takeover before
        operator.stick = (STILL, HELD)
        operator.wait(lambda: len(operator.of("gripper_cmd")) > 5, "the operator's commands")
        operator.stick = (STILL, FREE)
        operator.wait(lambda: not operator.active[-1], "the release")
        return {m.data for m in operator.of("gripper_cmd")}

    # The first message is lost if the teleop node has not yet discovered this publisher; a policy sends many.
    assert {0.011} in (commands_of_a_takeover() for _ in range(3))


@pytest.mark.parametrize("offset_s", [-30, 30])
def test_a_joystick_message_of_another_time_is_ignored(operator, offset_s):
    operator.joy_stamp = lambda: Time(sec=int(time.time()) + offset_s)
    operator.stick = (FORWARD, HELD)
    sent = operator.sent_joy
    operator.wait(lambda: operator.sent_joy > sent + 20, "a second of messages")
    assert twists(operator) == [] and operator.active == []
    operator.joy_stamp = lambda: operator.get_clock().now().to_msg()
    operator.wait(lambda: twists(operator) and operator.active, "motion")


def test_a_backlog_of_joystick_messages_after_a_stall_does_not_move_the_arm(operator, nodes):
    operator.stick = (FORWARD, HELD)
    operator.wait(lambda: twists(operator) and operator.active, "motion")
    os.kill(nodes.pids["teleop"], signal.SIGSTOP)
    sent = operator.sent_joy
    operator.wait(lambda: operator.sent_joy > sent + 30, "messages during the stall")
    operator.stick = None
    until_s = time.monotonic() + 0.6
    operator.wait(lambda: time.monotonic() > until_s, "the messages to grow old")
    operator.received.clear()
    os.kill(nodes.pids["teleop"], signal.SIGCONT)
    operator.wait(lambda: not operator.active[-1], "the release")
    operator.wait(lambda: twists(operator), "the zero velocity")
    assert not any(t.any() for t in twists(operator))


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        (
            "axis_signs:=[20.0,1.0,1.0,1.0,1.0,1.0]",
            "axis_signs is [20.0, 1.0, 1.0, 1.0, 1.0, 1.0], allowed -1 to 1 each",
        ),
        (
            "axis_signs:=[.nan,1.0,1.0,1.0,1.0,1.0]",
            "axis_signs is [nan, 1.0, 1.0, 1.0, 1.0, 1.0], which contains a val",
        ),
        ("axes:=[0.5,1.0,1.0,1.0,1.0,1.0]", "axes is (0.5, 1.0, 1.0, 1.0, 1.0, 1.0), expected whole numbers"),
        ("linear_m_s:=.nan", "linear_m_s"),
        ("joy_timeout_s:=.inf", "joy_timeout_s"),
        (
            "qos_overrides./joy.subscription.depth:=3",
            "qos_overrides./joy.subscription.depth: the QoS of this topic is f",
        ),
    ],
)
def test_a_parameter_out_of_range_starts_nothing(parameter, message):
    command = [sys.executable, "-m", "m2distill_policy.ros.nodes.teleop_node", "--ros-args", "-p", parameter]
    variables = os.environ | environment()
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("error: ") and message in line


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
    assert operator.call("stop").success  # the next tests have the arm for themselves
    operator.wait_for_state(PolicyStatus.IDLE)


def test_buttons_start_label_and_end_episodes_and_every_answer_can_be_felt(operator, nodes, checkpoint_path, tmp_path):
    """The deadman is free all the while. An order that is rejected is felt as five pulses."""
    felt: list[bool] = []
    operator.create_subscription(JoyFeedback, "joy/set_feedback", lambda m: felt.append(m.intensity > 0), 100)
    log = nodes.log_path("teleop")

    def press(number: int, pulses: int, answer: str) -> None:
        felt.clear()
        operator.stick = (STILL, [0] * 8)
        sent = operator.sent_joy
        operator.wait(lambda: operator.sent_joy > sent + 5, "messages with no button pressed")
        operator.stick = (STILL, [int(i == number) for i in range(8)])
        operator.wait(lambda: len(felt) == 2 * pulses, f"{pulses} pulses for {answer}; {felt}")
        assert felt == [True, False] * pulses and answer in log.read_text()

    operator.wait(lambda: operator.count_publishers("joy/set_feedback"), "the node")
    press(7, 5, "start: no node offers recorder/start; start one with m2distill run --record")
    with NodeProcesses([recorder_node(checkpoint_path, tmp_path / "episodes")], tmp_path) as recording:
        recorder = Recorder(operator)
        recorder.wait_until_up()
        known_s = time.monotonic() + DISCOVERY_S  # the teleop node discovers the recorder by itself
        operator.wait(lambda: time.monotonic() > known_s, "the discovery")
        press(7, 1, "start: recording ")
        press(6, 1, "success 'false'")
        press(5, 1, "success 'true'")
        press(3, 5, "keep: no instruction was received")
        press(2, 3, "discard: discarded; ")
        assert len(list((tmp_path / "episodes/discarded").iterdir())) == 1
        press(7, 1, "start: recording ")
        operator.instruct(KNOWN[1])  # the label is what the policy follows
        operator.wait(lambda: operator.status.instruction == KNOWN[1], "the policy's answer")
        recorder.record(30)
        press(3, 2, "keep: kept ")
        recording.check()
    operator.instruct("")
    operator.wait_for_state(PolicyStatus.IDLE)
    assert not operator.active


def test_parameters_read_at_startup_cannot_be_set_later(operator):
    teleop = AsyncParameterClient(operator, "teleop")
    operator.wait(teleop.services_are_ready, "the parameter services", 90.0)
    answer = operator.change_parameters(teleop, [Parameter("linear_m_s", value=0.5)])
    assert answer.results[0].reason == "linear_m_s: it is read at startup only; start the node again with the new value"


def test_a_button_moves_a_gripper_by_one_goal_with_control_msgs(client, tmp_path):
    if gripper.ParallelGripperCommand is None:
        pytest.skip("control_msgs is not installed")
    from rclpy.action import ActionServer

    arm = tmp_path / "arm.yaml"
    arm.write_text("extends: franka_servo\ngripper_output: parallel_action\n")
    goals = []

    def execute(handle):
        goals.append(tuple(handle.request.command.position))
        handle.succeed()
        return gripper.ParallelGripperCommand.Result()

    server = ActionServer(client, gripper.ParallelGripperCommand, "gripper_action", execute)
    teleop = NodeDescription("m2distill_policy", "teleop_node", "teleop", "", {"joy_timeout_s": 1.0, "arm": str(arm)})
    with NodeProcesses([teleop], tmp_path) as nodes:
        give_joystick(client)
        for buttons in (OPEN, CLOSE):
            before = len(goals)
            client.stick = (STILL, buttons)
            client.wait(lambda n=before: len(goals) > n, "a goal")
            sent = client.sent_joy
            client.wait(lambda n=sent: client.sent_joy > n + 10, "the button held for half a second")
            assert len(goals) == before + 1
        assert goals[0][0] > goals[1][0]
        nodes.check()
    server.destroy()
