"""The last command counts, also if a busy node receives several at once. Both nodes run in one executor."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from builtin_interfaces.msg import Duration
from harness import KNOWN, LIMIT_S, Client
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.parameter import Parameter
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.checkpoint import load_checkpoint, save_checkpoint
from m2distill_policy.language.instruction_matcher import InstructionMatcher
from m2distill_policy.ros.nodes.policy_node import PolicyNode

Result = ExecuteInstruction.Result
TRAVEL_S = 0.1  # more than a message takes within this process


@pytest.fixture
def node(make_node, client, checkpoint_path) -> Iterator[PolicyNode]:
    """An active node, which is idle until it is added to the client's executor."""
    node = make_node(PolicyNode)
    node.set_parameters([Parameter("checkpoint", value=str(checkpoint_path)), Parameter("min_similarity", value=0.93)])
    node.trigger_configure()
    node.trigger_activate()
    publishers = (client.instruction_pub, client.joints_pub, *client.image_pubs.values())
    client.wait(
        lambda: (
            client.execute.server_is_ready()
            and all(pub.get_subscription_count() for pub in publishers)
            and all(
                trigger.service_is_ready()
                for trigger in (client.change_state, client.command, *client.triggers.values())
            )
        ),
        "the policy's topics and services",
    )
    yield node
    client.spinner.remove_node(node)


def send_goal(client: Client, text: str):
    return client.execute.send_goal_async(ExecuteInstruction.Goal(instruction=text, time_limit=Duration(sec=600)))


def result(client: Client, sent) -> Result:
    handle = client.result(sent, "the goal to be accepted")
    assert handle.accepted
    return client.result(handle.get_result_async(), "the result").result


EVENTS = {
    "~/stop": lambda client: client.triggers["stop"].call_async(Trigger.Request()),
    "an empty instruction": lambda client: client.instruction_pub.publish(String()),
    "deactivate": lambda client: client.change_state.call_async(
        ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
    ),
}


@pytest.mark.parametrize(
    ("expected", "reason"),
    [("~/stop", Result.STOPPED), ("an empty instruction", Result.STOPPED), ("deactivate", Result.DEACTIVATED)],
)
def test_a_stop_is_not_overtaken_by_an_earlier_goal(expected, reason, node, client):
    goal = send_goal(client, KNOWN[0])
    time.sleep(TRAVEL_S)
    EVENTS[expected](client)
    time.sleep(TRAVEL_S)
    client.spinner.add_node(node)
    assert result(client, goal).termination_reason == reason
    if expected == "deactivate":
        assert client.transition(Transition.TRANSITION_ACTIVATE)
        client.wait_for_state(PolicyStatus.IDLE, "no instruction")
    client.sensors.reset()
    sent = client.sent
    client.wait(lambda: client.sent > sent + 5, "good inputs")
    assert client.status.state == PolicyStatus.IDLE and not client.of("policy/action")


def test_an_operator_is_not_overtaken_by_an_earlier_goal(node, client):
    operator_pub = client.create_publisher(Bool, "operator_active", 10)
    client.wait(operator_pub.get_subscription_count, "the policy's subscription")
    goal = send_goal(client, KNOWN[0])
    time.sleep(TRAVEL_S)
    operator_pub.publish(Bool(data=True))
    time.sleep(TRAVEL_S)
    client.spinner.add_node(node)
    client.wait_for_state(PolicyStatus.OPERATOR, "the operator has taken over")
    client.sensors.reset()
    sent = client.sent
    client.wait(lambda: client.sent > sent + 5, "good inputs")
    assert client.status.state == PolicyStatus.OPERATOR and not client.of("policy/action")
    client.instruct("")
    handle = client.result(goal, "the answer to the goal")
    if handle.accepted:  # otherwise the operator had the arm already
        assert client.result(handle.get_result_async(), "the result").result.termination_reason == Result.STOPPED


def test_two_simultaneous_goals_end_separately(node, client):
    first, second = send_goal(client, KNOWN[0]), send_goal(client, KNOWN[1])
    time.sleep(TRAVEL_S)
    client.spinner.add_node(node)
    assert result(client, first).termination_reason == Result.PREEMPTED
    assert client.status.instruction == KNOWN[1]
    assert client.call("stop").success
    assert result(client, second).termination_reason == Result.STOPPED


def test_an_activation_clears_an_instruction_received_while_inactive(node, client):
    node.trigger_deactivate()
    node._parts.controller.instructions.request(
        KNOWN[0]
    )  # no callback does so while inactive; the check protects against it in addition
    node.trigger_activate()
    client.spinner.add_node(node)
    client.sensors.reset()
    sent = client.sent
    client.wait(lambda: client.sent > sent + 5, "good inputs")
    assert client.status.state == PolicyStatus.IDLE and not client.of("policy/action")


def test_an_instruction_whose_checkpoint_is_swapped_during_matching_is_rejected(
    node, client, checkpoint_path, tmp_path, monkeypatch
):
    judged = threading.Event()
    monkeypatch.setattr(InstructionMatcher, "match", lambda *_: judged.wait(LIMIT_S) and KNOWN[0])
    checkpoint = load_checkpoint(checkpoint_path)
    save_checkpoint(tmp_path / "other", replace(checkpoint, instructions={"bow": np.ones(8, np.float32)}))
    client.spinner.add_node(node)
    goal = send_goal(client, "fetch the soup")
    client.wait_for_state(PolicyStatus.HOLDING, "comparing")
    client.set_parameter("checkpoint", str(tmp_path / "other"))
    client.wait(lambda: client.status.known_instructions == ["bow"], "the swap")
    judged.set()
    end = result(client, goal)
    assert end.termination_reason == Result.REFUSED
    assert end.message == client.wait_for_state(PolicyStatus.IDLE, "does not know").reason
    client.instruct("bow")
    client.wait(lambda: client.status.instruction == "bow", "the node to continue")


def test_many_unknown_instructions_are_matched_one_at_a_time_and_the_last_one_counts(node, client, monkeypatch):
    judged, go = [], threading.Event()

    def match(matcher, text, known):
        judged.append(text)
        return go.wait(LIMIT_S) and KNOWN[1]

    monkeypatch.setattr(InstructionMatcher, "match", match)
    client.spinner.add_node(node)
    for i in range(8):
        client.instruct(f"sing song {i}")
        client.wait_for_state(PolicyStatus.HOLDING, f"song {i}")
    client.wait(lambda: judged, "the comparison")
    assert judged == ["sing song 0"] and sum(t.name == "background" for t in threading.enumerate()) == 1
    go.set()
    client.wait(lambda: client.status.instruction == KNOWN[1], "the last one's answer")
    assert judged == ["sing song 0", "sing song 7"]
