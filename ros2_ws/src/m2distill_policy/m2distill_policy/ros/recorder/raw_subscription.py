"""Message classes, QoS and stamps of the recorder's raw subscriptions."""

import importlib
import struct

from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

from m2distill_policy.recording import episode_topics

DEPTHS = {
    episode_topics.SENSOR: 100,
    episode_topics.COMMAND: 100,
    episode_topics.LATCHED: 100,
}  # messages that may be queued while the disk is slow

STAMPS = {0: struct.Struct(">iI"), 1: struct.Struct("<iI")}  # by the byte order, which a message's head states
HEAD_BYTES = 4


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


def header_stamp_ns(raw: bytes) -> int | None:
    """Return the stamp of a serialized message that begins with a std_msgs/Header; None if it is cut off."""
    if len(raw) < HEAD_BYTES + 8 or raw[1] not in STAMPS:
        return None
    seconds, nanoseconds = STAMPS[raw[1]].unpack_from(raw, HEAD_BYTES)
    return seconds * 10**9 + nanoseconds
