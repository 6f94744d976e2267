"""Arms of every output for the tests of the teleop node, and what of their commands is motion."""

from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseStamped
from harness import Client
from std_msgs.msg import Float64MultiArray

from m2distill_policy.ros.common.conversions import pose_to_numpy, twist_to_numpy

TOPICS = {"twist": "twist_cmd", "pose": "target_pose", "array": "velocity_cmd"}
KINDS = {"target_pose": PoseStamped, "velocity_cmd": Float64MultiArray}  # the client receives twists already
ARM = "frame_id: panda_link0\nmax_age_s: 1.0\nwatchdog_s: 1.0\n"


def listen(client: Client, output: str) -> str:
    """Receive the commands of an output, and return their topic."""
    topic = TOPICS[output]
    if topic in KINDS:
        client.create_subscription(KINDS[topic], topic, lambda m: client.received.append((topic, m)), 100)
    return topic


def velocity(message, hand) -> np.ndarray:
    """Return a command (6,) in m/s and rad/s; of a target pose its distance in m from `hand` (3,)."""
    if isinstance(message, PoseStamped):
        return pose_to_numpy(message).position_m - hand
    if isinstance(message, Float64MultiArray):
        return np.array(message.data)
    return np.concatenate(twist_to_numpy(message))


def is_moved(client: Client, topic: str) -> Callable[[], bool]:
    """Return a function that returns whether the last command moves the arm; a target where the hand is does not."""
    return lambda: any(
        np.abs(velocity(message, np.array(client.hand))).max() > 1e-9 for message in client.of(topic)[-1:]
    )
