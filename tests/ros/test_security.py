"""The SROS2 policy file: only two enclaves may command the arm, and no node lacks a permission."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from lifecycle_msgs.srv import GetState
from rclpy.action import get_action_server_names_and_types_by_node
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter

from m2distill_policy.bringup.processes import NodeDescription, NodeProcesses
from m2distill_policy.ros.nodes.dashboard_node import DashboardNode
from m2distill_policy.ros.nodes.policy_node import PolicyNode
from m2distill_policy.ros.nodes.teleop_node import TeleopNode

FILE = Path(__file__).parents[2] / "docs/security/m2distill.policy.xml"
COMMANDS = {"/twist_cmd", "/target_pose", "/velocity_cmd", "/gripper_cmd"}
ENCLAVES = ("policy", "robot", "recorder", "teleop", "operator")


def allowed(enclave: str, kind: str, verb: str) -> set[str]:
    """Return the full names that an enclave may use; `kind` is topic, service or action."""
    (profile,) = ET.parse(FILE).findall(f".//enclave[@path='/m2distill/{enclave}']/profiles/profile")
    return {
        "/" + name.text.replace("~", profile.get("node"))
        for name in profile.findall(f"{kind}s[@{verb}='ALLOW']/{kind}")
    }


def published(witness: Node, name: str) -> set[str]:
    return {topic for topic, _ in witness.get_publisher_names_and_types_by_node(name, "/")}


def assert_allowed(witness: Node, name: str, actions: set[str]) -> None:
    """Assert that the enclave of a node permits everything it has, with these action servers."""
    assert {server for server, _ in get_action_server_names_and_types_by_node(witness, name, "/")} == actions
    of_actions = tuple(f"{server}/_action/" for server in actions)
    for names, kind, verb in [
        (witness.get_publisher_names_and_types_by_node(name, "/"), "topic", "publish"),
        (witness.get_subscriber_names_and_types_by_node(name, "/"), "topic", "subscribe"),
        (witness.get_service_names_and_types_by_node(name, "/"), "service", "reply"),
    ]:
        used = {full for full, _ in names if not full.startswith(of_actions)}
        assert used and used <= allowed(name, kind, verb), kind


@pytest.mark.parametrize("output", ["twist", "pose", "array"])
def test_the_policy_is_permitted_everything_it_uses(make_node, checkpoint_path, output):
    node = make_node(PolicyNode)
    node.set_parameters([Parameter("output", value=output), Parameter("checkpoint", value=str(checkpoint_path))])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, node.problem
    assert_allowed(node, "policy", allowed("policy", "action", "execute"))
    assert len(published(node, "policy") & COMMANDS) == 2  # the motion and the gripper


def test_the_dashboard_is_permitted_everything_it_uses_and_commands_nothing(make_node):
    node = make_node(DashboardNode)
    used = {service for service, _ in node.get_client_names_and_types_by_node("dashboard", "/")}
    assert {"/policy/command", "/sim/reset"} <= used <= allowed("operator", "service", "request")
    topics = published(node, "dashboard")
    assert topics and topics <= allowed("operator", "topic", "publish") and not topics & COMMANDS


@pytest.mark.parametrize(
    ("lines", "command"),
    [
        ("output: twist\n", "/twist_cmd"),
        ("output: pose\n", "/target_pose"),
        ("extends: fr3_impedance  # by TF\n", "/target_pose"),
        ("output: array\n", "/velocity_cmd"),
    ],
)
def test_teleoperation_is_permitted_everything_it_uses(make_node, monkeypatch, tmp_path, lines, command):
    (tmp_path / "arm.yaml").write_text(lines)
    init, arm = Node.__init__, Parameter("arm", value=str(tmp_path / "arm.yaml"))
    monkeypatch.setattr(Node, "__init__", lambda self, name: init(self, name, parameter_overrides=[arm]))
    node = make_node(TeleopNode)
    assert_allowed(node, "teleop", set())
    assert published(node, "teleop") & COMMANDS == {command, "/gripper_cmd"}


@pytest.mark.parametrize("image_transport", ["raw", "compressed"])
def test_the_recorder_is_permitted_everything_it_uses_and_cannot_move_the_arm(
    client, checkpoint_path, tmp_path, image_transport
):
    recorder = NodeDescription(
        "m2distill_policy",
        "recorder_node",
        "recorder",
        "",
        {
            "checkpoint": str(checkpoint_path),
            "directory": str(tmp_path),
            "image_transport": image_transport,
            "autostart": True,
        },
    )
    with NodeProcesses([recorder], tmp_path) as nodes:
        active = client.create_client(GetState, "recorder/get_state")
        client.wait(
            lambda: client.ask(active, GetState.Request(), "its state").current_state.label == "active",
            "an active recorder",
        )
        client.wait(
            lambda: (
                "recorder" in client.get_node_names()
                and "/recorder/command"
                in {topic for topic, _ in client.get_subscriber_names_and_types_by_node("recorder", "/")}
            ),
            "the graph",
        )
        assert_allowed(client, "recorder", set())
        assert published(client, "recorder") & COMMANDS == set()
        nodes.check()


def test_only_the_policy_and_teleoperation_may_command_the_arm():
    assert allowed("policy", "topic", "publish") >= COMMANDS == allowed("robot", "topic", "subscribe") & COMMANDS
    moving = {enclave for enclave in ENCLAVES if allowed(enclave, "topic", "publish") & (COMMANDS | {"/*"})}
    assert moving == {"policy", "teleop"}
    assert [e for e in ENCLAVES if "/operator_active" in allowed(e, "topic", "publish")] == ["teleop"]
    assert [e for e in ENCLAVES if "/gripper_action" in allowed(e, "action", "call")] == ["policy"]
    assert {enclave.get("path") for enclave in ET.parse(FILE).iter("enclave")} == {f"/m2distill/{e}" for e in ENCLAVES}
