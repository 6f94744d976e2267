"""Comparison of the live ROS graph with a node's topics: missing, incompatible and duplicate publishers."""

import time
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from m2distill_policy.ros.common.managed_entities import ManagedEntities

UNKNOWN_NODE = "_NODE_NAME_UNKNOWN_"
DISCOVERY_S = 3.0  # from a node's creation until it has discovered the others; measured 1.3 to 1.4
SETTLED_S = 0.5  # without a change of the graph until it counts as discovered
POLICY_STATUS, JOINT_STATE = "m2distill_interfaces/msg/PolicyStatus", "sensor_msgs/msg/JointState"
TRANSFORMS = "tf2_msgs/msg/TFMessage"
COMMAND = "m2distill_interfaces/srv/Command"


def topic_problems(entities: ManagedEntities) -> list[str]:
    """Return one line for each required topic without a publisher and for each publisher that is not received."""
    found = []
    for subscription, needed in entities.subscriptions:
        topic = subscription.topic_name
        publishers = entities.node.get_publishers_info_by_topic(topic)
        if needed and not publishers:
            found.append(f"{topic}: no publisher")
        for publisher in publishers:
            source = f"{topic}: {node_of(publisher)}"
            expected = type_name(subscription.msg_type)
            if publisher.topic_type != expected:
                found.append(f"{source} publishes {publisher.topic_type}, expected {expected}")
            elif reason := incompatible(publisher.qos_profile, subscription.qos_profile):
                found.append(f"{source} is not received: {reason}")
    return found


def incompatible(offered: QoSProfile, requested: QoSProfile) -> str:
    """Return why a publisher's QoS does not match a subscription's; empty if it matches or may match."""
    match, reason = qos_check_compatible(offered, requested)
    return reason.rstrip(";") if match == QoSCompatibility.ERROR else ""


def type_name(kind: Any) -> str:
    """Return "package/msg/Name" of a message class."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def duplicate_inputs(entities: ManagedEntities) -> list[str]:
    """Return one line for each required topic, and for a simulation's clock, with more than one publisher.

    Several drivers may publish joint states or transforms; `ros/policy/part_sources.py` checks that their parts differ.
    """
    node, found = entities.node, []
    topics = [(s.topic_name, type_name(s.msg_type)) for s, needed in entities.subscriptions if needed]
    topics = [(topic, kind) for topic, kind in topics if kind not in (JOINT_STATE, TRANSFORMS)]
    if node.get_parameter("use_sim_time").value:
        topics.append((node.resolve_topic_name("/clock"), "rosgraph_msgs/msg/Clock"))
    for topic, kind in topics:
        if several := several_publishers(node, topic, kind):
            found.append(several)
    return found


def several_publishers(node: Node, topic: str, kind: str = "") -> str:
    """Return which nodes publish a topic if they are more than one, else an empty text; only those of type `kind`."""
    sources = [node_of(p) for p in named_publishers(node, topic) if not kind or p.topic_type == kind]
    if len(sources) <= 1:
        return ""
    return f"{topic} has {len(sources)} publishers, allowed is one: {', '.join(sorted(sources))}"


def other_policies(entities: ManagedEntities, command_topic: str | None) -> list[str]:
    """Return one line for each other policy node that publishes our status topic or our command topic."""
    node = entities.node
    ours = f"{node.get_namespace().rstrip('/')}/{node.get_name()}"
    status = f"{ours}/status"
    found = []
    count = len(named_publishers(node, status))
    if count > 1:
        found.append(f"{status} has {count} publishers: another policy node is called {ours}")
    for publisher in named_publishers(node, command_topic) if command_topic else ():
        other = node_of(publisher)
        if other != ours and POLICY_STATUS in dict(node.get_topic_names_and_types()).get(f"{other}/status", ()):
            found.append(f"{command_topic} is also published by the policy node {other}")
    return found


def policies(node: Node) -> list[str]:
    """Return the full names of all discovered policy nodes."""
    services = (name for name, kinds in node.get_service_names_and_types() if COMMAND in kinds)
    names = (service.removesuffix("/command") for service in services if service.endswith("/command"))
    # a client that waits for a policy also lists the policy's service
    return sorted(n for n in names if node.count_services(f"{n}/command") or node.count_publishers(f"{n}/status"))


class GraphChanges:
    """Changes of the discovered graph: the topics of one node become known one after another."""

    def __init__(self, node: Node):
        self._node = node
        self._known: set[str] = set()
        self._changed_s = time.monotonic()

    def is_settled(self, topic: str | None) -> bool:
        """Return whether nothing new was discovered lately and the nodes of all publishers of `topic` are known.

        A publisher has a node without a name if it has just appeared, or was killed.
        """
        node = self._node
        names = {f"{namespace.rstrip('/')}/{name}" for name, namespace in node.get_node_names_and_namespaces()}
        names |= {name for name, _ in (*node.get_topic_names_and_types(), *node.get_service_names_and_types())}
        if names != self._known:
            self._known, self._changed_s = names, time.monotonic()
        publishers = node.get_publishers_info_by_topic(topic) if topic else ()
        unnamed = any(publisher.node_name == UNKNOWN_NODE for publisher in publishers)
        return not unnamed and time.monotonic() >= self._changed_s + SETTLED_S


def named_publishers(node: Node, topic: str) -> list[TopicEndpointInfo]:
    """Return the publishers of known nodes. That of a node that has just ended is listed without its name."""
    return [p for p in node.get_publishers_info_by_topic(topic) if p.node_name != UNKNOWN_NODE]


def node_of(publisher: TopicEndpointInfo) -> str:
    return f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
