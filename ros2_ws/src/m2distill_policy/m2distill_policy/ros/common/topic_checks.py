"""Comparison of the live ROS graph with a node's subscriptions: publishers that are missing or incompatible."""

from typing import Any

from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

from m2distill_policy.ros.common.managed_entities import ManagedEntities


def topic_problems(entities: ManagedEntities) -> list[str]:
    """Return one line for each required topic without a publisher and for each publisher that is not received."""
    found = []
    for subscription, needed in entities.subscriptions:
        topic = subscription.topic_name
        publishers = entities.node.get_publishers_info_by_topic(topic)
        if needed and not publishers:
            found.append(f"{topic}: no publisher")
        for publisher in publishers:
            source = f"{topic}: {publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
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
