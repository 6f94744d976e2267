"""The SROS2 policy file against the node as it is: nobody else may command the arm, and the node lacks nothing."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rclpy.action import get_action_server_names_and_types_by_node
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from m2distill_policy.ros.policy_node import PolicyNode

FILE = Path(__file__).parents[2] / "docs/security/m2distill.policy.xml"
COMMANDS = {"/twist_cmd", "/target_pose", "/velocity_cmd", "/gripper_cmd"}


def allowed(enclave: str, kind: str, verb: str) -> set[str]:
    """Full names of what an enclave may do; `kind` is topic, service or action."""
    (profile,) = ET.parse(FILE).findall(f".//enclave[@path='/m2distill/{enclave}']/profiles/profile")
    return {"/" + name.text.replace("~", profile.get("node"))
            for name in profile.findall(f"{kind}s[@{verb}='ALLOW']/{kind}")}


@pytest.fixture
def configured(ros, checkpoint_path):
    """Makes PolicyNodes, configured with the given parameters, in this process."""
    made = []

    def make(**parameters) -> PolicyNode:
        node = PolicyNode()
        made.append(node)
        node.set_parameters([Parameter(name, value=value) for name, value in parameters.items()])
        node.set_parameters([Parameter("checkpoint", value=str(checkpoint_path))])
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, node.problem
        return node

    yield make
    for node in made:
        node.close()
        node.destroy_node()


@pytest.mark.parametrize("output", ["twist", "pose", "array"])
def test_the_node_may_do_all_that_it_does(configured, output):
    node = configured(output=output)
    servers = {name for name, _ in get_action_server_names_and_types_by_node(node, "policy", "/")}
    assert servers == allowed("policy", "action", "execute")
    of_actions = re.compile("|".join(f"{name}/_action/" for name in servers))
    for names, kind, verb in [(node.get_publisher_names_and_types_by_node("policy", "/"), "topic", "publish"),
                              (node.get_subscriber_names_and_types_by_node("policy", "/"), "topic", "subscribe"),
                              (node.get_service_names_and_types_by_node("policy", "/"), "service", "reply")]:
        used = {name for name, _ in names if not of_actions.match(name)}
        assert used <= allowed("policy", kind, verb), kind
    published = {name for name, _ in node.get_publisher_names_and_types_by_node("policy", "/")}
    assert len(published & COMMANDS) == 2  # the motion and the gripper


def test_only_the_policy_may_command_the_arm():
    assert allowed("policy", "topic", "publish") >= COMMANDS == allowed("robot", "topic", "subscribe") & COMMANDS
    for enclave in ("robot", "operator"):
        assert not allowed(enclave, "topic", "publish") & COMMANDS
    assert "/*" not in allowed("operator", "topic", "publish") | allowed("robot", "topic", "publish")
    assert allowed("policy", "action", "call") == {"/gripper_action"}
    assert "/gripper_action" not in allowed("operator", "action", "call")
