"""Compressed images: valid ones lead to actions, malformed ones are rejected with the reason."""

import array

import cv2
import numpy as np
import pytest
from harness import CAMERAS, KNOWN, START_LIMIT_S, policy_node
from sensor_msgs.msg import CompressedImage

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.ros.common import conversions
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
GOOD = cv2.imencode(".jpg", IMAGE)[1].tobytes()


@pytest.fixture
def compressed(client, checkpoint_path, tmp_path):
    """The client of an active node, with cameras that send what is in `client.images`."""
    pubs = {name: client.create_publisher(CompressedImage, f"{name}/image_raw/compressed", 1) for name in CAMERAS}
    client.images = dict.fromkeys(CAMERAS, GOOD)

    def sense() -> None:
        now_ns = client.get_clock().now().nanoseconds
        names = [*PANDA_JOINTS, *PANDA_FINGERS]
        client.joints_pub.publish(conversions.joint_state_from_numpy(names, client.positions, now_ns))
        for name, data in client.images.items():
            message = CompressedImage(format="rgb8; jpeg compressed bgr8", data=array.array("B", data))
            message.header.stamp = conversions.stamp_from_ns(now_ns)
            pubs[name].publish(message)

    client.create_timer(0.05, sense)
    node = policy_node(checkpoint_path, image_transport="compressed", autostart=True)
    with NodeProcesses([node], tmp_path) as nodes:
        client.wait(
            lambda: (
                client.status
                and client.instruction_pub.get_subscription_count()
                and all(pub.get_subscription_count() for pub in pubs.values())
            ),
            "an active node",
            START_LIMIT_S,
        )
        client.instruct(KNOWN[0])
        yield client
        nodes.check()


def test_jpegs_move_the_arm_and_one_with_a_false_size_holds_it(compressed):
    compressed.wait_for_state(PolicyStatus.RUNNING)
    compressed.wait_for_motion(True)
    bomb = bytearray(GOOD)
    at = bomb.index(b"\xff\xc0") + 5  # height and width in the frame header
    bomb[at : at + 4] = b"\xff\xdc\xff\xdc"
    compressed.images["wrist"] = bytes(bomb)
    compressed.wait_for_state(PolicyStatus.HOLDING, "image is 65500x65500 px, allowed 16777216")
    compressed.wait_for_motion(False)
    compressed.images["wrist"] = GOOD
    compressed.wait_for_state(PolicyStatus.RUNNING)
