"""How the topics of an episode are heard as they come over the wire."""

import importlib

from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

from m2distill_policy.recording import episode_topics

DEPTHS = {
    episode_topics.SENSOR: 100,
    episode_topics.COMMAND: 100,
    episode_topics.LATCHED: 1,
}  # messages that may wait while the disk is slow


def message_class(name: str) -> type:
    """Of "package/msg/Name". rosidl_runtime_py, which does this elsewhere, is not among the PyPI wheels."""
    package, _, kind = name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), kind)


def qos(topic: episode_topics.Topic) -> QoSProfile:
    reliability = (
        QoSReliabilityPolicy.BEST_EFFORT if topic.qos == episode_topics.SENSOR else QoSReliabilityPolicy.RELIABLE
    )
    durability = (
        QoSDurabilityPolicy.TRANSIENT_LOCAL if topic.qos == episode_topics.LATCHED else QoSDurabilityPolicy.VOLATILE
    )
    return QoSProfile(depth=DEPTHS[topic.qos], reliability=reliability, durability=durability)
