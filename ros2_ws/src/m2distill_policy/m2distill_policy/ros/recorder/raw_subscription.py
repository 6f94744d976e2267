"""Message classes and QoS of the recorder's raw subscriptions."""

import importlib

from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

from m2distill_policy.recording import episode_topics

DEPTHS = {
    episode_topics.SENSOR: 100,
    episode_topics.COMMAND: 100,
    episode_topics.LATCHED: 1,
}  # messages that may be queued while the disk is slow


def message_class(name: str) -> type:
    """Return the class of "package/msg/Name". The PyPI wheels lack rosidl_runtime_py, which also does this."""
    package, _, kind = name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), kind)


def qos(topic: episode_topics.Topic) -> QoSProfile:
    """Return the QoS of the subscription to a topic."""
    reliability = (
        QoSReliabilityPolicy.BEST_EFFORT if topic.qos == episode_topics.SENSOR else QoSReliabilityPolicy.RELIABLE
    )
    durability = (
        QoSDurabilityPolicy.TRANSIENT_LOCAL if topic.qos == episode_topics.LATCHED else QoSDurabilityPolicy.VOLATILE
    )
    return QoSProfile(depth=DEPTHS[topic.qos], reliability=reliability, durability=durability)
