"""The RViz configuration and the Foxglove layout match the topics and types of the policy node."""

import json
import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSReliabilityPolicy

from m2distill_policy.ros.nodes.policy_node import PolicyNode

VIEWS = Path(__file__).parents[2] / "ros2_ws/src/m2distill_policy/rviz"
RVIZ_SHOWS = {
    "rviz_default_plugins/Pose": "geometry_msgs/msg/PoseStamped",
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
    "rviz_default_plugins/TwistStamped": "geometry_msgs/msg/TwistStamped",
}
# https://docs.foxglove.dev: panels that the layout uses -> where they name a topic or a message path in it
FOXGLOVE_PATHS = {
    "Image": lambda c: [c["imageMode"]["imageTopic"]],
    "RawMessages": lambda c: [c["topicPath"]],
    "DiagnosticSummary": lambda c: [c["topicToRender"]],
    "Publish": lambda c: [c["topicName"]],
    "Plot": lambda c: [path["value"] for path in c["paths"]],
    "StateTransitions": lambda c: [path["value"] for path in c["paths"]],
    "CallService": lambda c: [],
}


@pytest.fixture
def policy(make_node, checkpoint_path) -> PolicyNode:
    node = make_node(PolicyNode)
    node.set_parameters([Parameter("checkpoint", value=str(checkpoint_path))])
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, node.problem
    return node


def types(policy: PolicyNode) -> dict[str, str]:
    """Return the type of each topic that the node publishes or subscribes to."""
    return {
        topic: kinds[0]
        for topic, kinds in (
            *policy.get_publisher_names_and_types_by_node("policy", "/"),
            *policy.get_subscriber_names_and_types_by_node("policy", "/"),
        )
    }


def field(type_name: str, path: str) -> str:
    """Return the type of a field, such as `twist.linear.x` or `action[0]`. Raises KeyError if it does not exist."""
    for name in path.split("."):
        package, _, kind = type_name.split("/")
        fields = getattr(import_module(f"{package}.msg"), kind).get_fields_and_field_types()
        type_name = re.sub(r"^sequence<(.*)>$|\[\d+\]$", r"\1", fields[re.sub(r"\[\d+\]$", "", name)])
        type_name = type_name if "/msg/" in type_name else type_name.replace("/", "/msg/")
    return type_name


def test_every_display_of_rviz_has_its_topic_type_and_quality_of_service(policy):
    displays = yaml.safe_load((VIEWS / "m2distill.rviz").read_text())["Visualization Manager"]["Displays"]
    shown = [display for display in displays if "Topic" in display]
    assert {d["Topic"]["Value"] for d in shown} == {"agentview/image_raw", "wrist/image_raw", "twist_cmd", "ee_pose"}
    (arm,) = (d["Description Topic"] for d in displays if d["Class"] == "rviz_default_plugins/RobotModel")
    assert (arm["Value"], arm["Durability Policy"]) == ("robot_description", "Transient Local")
    assert "rviz_default_plugins/TF" in {d["Class"] for d in displays}
    for display in shown:
        topic = "/" + display["Topic"]["Value"]
        assert types(policy)[topic] == RVIZ_SHOWS[display["Class"]], topic
        if display["Topic"]["Reliability Policy"] == "Reliable":
            offered = [info.qos_profile.reliability for info in policy.get_publishers_info_by_topic(topic)]
            assert offered == [QoSReliabilityPolicy.RELIABLE], topic


def test_every_panel_of_foxglove_has_its_topic_field_and_service(policy):
    layout = json.loads((VIEWS / "foxglove.json").read_text())
    assert layout.keys() == {"configById", "globalVariables", "userNodes", "playbackConfig", "layout"}
    assert sorted(panels(layout["layout"])) == sorted(layout["configById"])
    topics, shown = types(policy), set()
    services = {service for service, _ in policy.get_service_names_and_types_by_node("policy", "/")}
    for panel, config in layout["configById"].items():
        assert "title" not in config, panel  # Foxglove reads foxglovePanelTitle
        for value in FOXGLOVE_PATHS[panel.split("!")[0]](config):
            topic, _, path = value.partition(".")
            shown.add(topic)
            assert topic in topics, panel
            assert not path or field(topics[topic], path), panel
        if panel.startswith("CallService"):
            assert config["serviceName"] in services and json.loads(config["requestPayload"]) == {}
        if panel.startswith("Publish"):
            assert config["datatype"] == topics[config["topicName"]] == "std_msgs/msg/String"
            assert list(json.loads(config["value"])) == ["data"]
    assert shown == {
        "/agentview/image_raw",
        "/wrist/image_raw",
        "/twist_cmd",
        "/policy/action",
        "/policy/status",
        "/diagnostics",
        "/instruction",
    }
    assert field(topics["/policy/action"], "action[0]") == "float"
    with pytest.raises(KeyError):
        field(topics["/twist_cmd"], "twist.linear.w")


def panels(layout: dict | str) -> list[str]:
    """Return the ids of the panels of a layout, which is one panel or a pair of layouts."""
    if isinstance(layout, str):
        return [layout]
    assert layout.keys() == {"direction", "first", "second", "splitPercentage"}
    assert layout["direction"] in ("row", "column") and 0 < layout["splitPercentage"] < 100
    return panels(layout["first"]) + panels(layout["second"])
