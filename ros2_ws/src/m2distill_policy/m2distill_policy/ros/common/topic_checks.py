"""The live ROS graph against what the node subscribes to: publishers that are missing, or that cannot match."""

from typing import Any

from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

from m2distill_policy.ros.common.managed_entities import ManagedEntities


def problems(made: ManagedEntities) -> list[str]:
    """One line for each needed topic that nobody publishes and for each publisher that cannot be heard."""
    found = []
    for subscription, needed in made.subscriptions:
        topic = subscription.topic_name
        publishers = made.node.get_publishers_info_by_topic(topic)
        if needed and not publishers:
            found.append(f"{topic}: nobody publishes it")
        for publisher in publishers:
            who = f"{topic}: {publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
            wanted = type_name(subscription.msg_type)
            if publisher.topic_type != wanted:
                found.append(f"{who} publishes {publisher.topic_type}, expected {wanted}")
            elif reason := incompatible(publisher.qos_profile, subscription.qos_profile):
                found.append(f"{who} cannot be heard: {reason}")
    return found


def incompatible(offered: QoSProfile, wanted: QoSProfile) -> str:
    """Why a publisher's QoS does not match a subscription's; empty when it does or may."""
    match, reason = qos_check_compatible(offered, wanted)
    return reason.rstrip(";") if match == QoSCompatibility.ERROR else ""


def type_name(kind: Any) -> str:
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
