"""Checks of the robot at activation, success of a goal, and matching of instructions."""

from collections.abc import Iterator

import numpy as np
import pytest
import rclpy
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from harness import KNOWN, START_LIMIT_S, Client, policy_node
from lifecycle_msgs.msg import Transition
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from std_msgs.msg import Bool, String

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses

Result = ExecuteInstruction.Result
PERIOD_NS = 50_000_000


@pytest.fixture(scope="module")
def node(checkpoint_path, tmp_path_factory) -> Iterator[NodeProcesses]:
    description = policy_node(checkpoint_path, min_similarity=0.93)
    with NodeProcesses([description], tmp_path_factory.mktemp("log")) as nodes:
        yield nodes
        nodes.check()


@pytest.fixture
def configured(client, node) -> Iterator[Client]:
    assert client.transition(Transition.TRANSITION_CONFIGURE)
    client.wait(
        lambda: all(
            pub.get_subscription_count()
            for pub in (client.instruction_pub, client.joints_pub, *client.image_pubs.values())
        ),
        "the node's inputs",
    )
    yield client
    if client.state() == "active":
        assert client.transition(Transition.TRANSITION_DEACTIVATE)
    assert client.transition(Transition.TRANSITION_CLEANUP)


def sense(client: Client, sets: int) -> None:
    client.sensors.reset()
    sent = client.sent
    client.wait(lambda: client.sent >= sent + sets, "sensor data")


def test_a_robot_that_does_not_match_is_not_activated_and_one_that_matches_is(configured, node):
    configured.sizes["wrist"] = 32
    sense(configured, 5)
    assert not configured.transition(Transition.TRANSITION_ACTIVATE)
    assert configured.state() == "inactive"
    wording = node.log_path("policy").read_text()
    assert "the robot does not match the one of the checkpoint: camera wrist: got 32x32 px" in wording
    configured.sizes["wrist"] = 64
    sense(configured, 25)
    assert configured.transition(Transition.TRANSITION_ACTIVATE)


@pytest.fixture
def another_context() -> Iterator[rclpy.Context]:
    """A separate participant, because one cannot have two types on a topic."""
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.try_shutdown(context=context)


def test_missing_and_incompatible_publishers_are_named(configured, node, another_context):
    configured.sizes["agentview"] = 0
    stranger = Node("stranger", context=another_context)
    stranger.create_publisher(String, "instruction", QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT))
    stranger.create_publisher(Bool, "joint_states", 1)
    sense(configured, 25)
    assert configured.transition(Transition.TRANSITION_ACTIVATE)
    assert "agentview: no message in the last second" in node.log_path("policy").read_text()
    joints = "/joint_states: /stranger publishes std_msgs/msg/Bool, expected sensor_msgs/msg/JointState"

    def named() -> bool:  # a publisher is discovered before the name of its node
        topics = [
            value.value
            for array in configured.of("/diagnostics")
            for value in array.status[0].values
            if value.key == "topics"
        ]
        return any(
            "/instruction: /stranger is not received: " in line and "reliab" in line.lower() and joints in line
            for line in topics
        )

    configured.wait(named, "both publishers in the diagnostics")
    stranger.destroy_node()


def activate(client: Client) -> None:
    assert client.transition(Transition.TRANSITION_ACTIVATE)
    client.sensors.reset()


def goal(client: Client, text: str, limit_s: int, feedback=None):
    sending = client.execute.send_goal_async(
        ExecuteInstruction.Goal(instruction=text, time_limit=Duration(sec=limit_s)), feedback
    )
    handle = client.result(sending, "the goal to be accepted")
    assert handle.accepted
    return handle


def test_the_success_topic_ends_a_goal_with_success_after_feedback_twice_a_second(configured):
    activate(configured)
    feedback = []
    handle = goal(configured, KNOWN[0], 60, lambda message: feedback.append(message.feedback))
    configured.wait(lambda: len(feedback) >= 2, "feedback")
    times_s = [f.elapsed.sec + f.elapsed.nanosec * 1e-9 for f in feedback[:2]]
    assert times_s[1] - times_s[0] >= 0.5
    configured.success_pub.publish(Bool(data=False))
    configured.success_pub.publish(Bool(data=True))
    end = configured.result(handle.get_result_async(), "the result")
    assert (end.status, end.result.termination_reason) == (GoalStatus.STATUS_SUCCEEDED, Result.SUCCESS)
    assert "commands, " in end.result.message and "held" in end.result.message
    configured.wait_for_state(PolicyStatus.IDLE, "success")
    configured.wait_for_motion(False)


def test_a_paraphrase_matches_the_instruction_and_another_text_is_rejected(configured):
    activate(configured)
    rejected = goal(configured, "pick up the banana and place it in the basket", 600)
    configured.wait_for_state(PolicyStatus.HOLDING, "comparing")
    answer = configured.wait(rejected.get_result_async().done, "the rejection", START_LIMIT_S) and configured.result(
        rejected.get_result_async(), "the result"
    )
    assert answer.result.termination_reason == Result.REFUSED
    assert f"known: {KNOWN[0]}; {KNOWN[1]}" in answer.result.message
    assert configured.of("policy/action") == []
    for text in (
        "do NOT pick up the alphabet soup and place it in the basket",
        KNOWN[0].replace("in the", "outside the"),
    ):
        answer = configured.result(configured.command_to("INSTRUCT", text), "the answer")
        assert not answer.accepted and "a difference may change the meaning" in answer.message
    assert configured.of("policy/action") == []
    configured.instruct("Grab the alphabet soup and put it in the basket!")
    assert configured.wait_for_state(PolicyStatus.RUNNING).instruction == KNOWN[0]


def test_mixture_modes_and_entropy_are_published(configured):
    activate(configured)
    configured.instruct(KNOWN[0])
    action = configured.wait(lambda: next(iter(configured.of("policy/action")), None), "an action")
    weights = np.array(action.weights)
    assert len(weights) == 5 and weights.sum() == pytest.approx(1.0, abs=1e-5)
    assert 0 <= action.mode < 5
    assert action.entropy == pytest.approx(-(weights * np.log(weights)).sum(), abs=1e-4)
