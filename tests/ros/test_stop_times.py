"""The time from a fault to the last motion, for each format of the commands."""

import os
import statistics

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from harness import STOP_MS, Client, policy_node, run
from std_msgs.msg import Float64MultiArray

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.ros.common.conversions import pose_to_numpy, twist_to_numpy

FAULTS = int(os.environ.get("M2DISTILL_FAULTS", "3"))  # for each format
NEAR_ITS_LIMIT_RAD, FREE_RAD = 3.70, 1.5  # of the sixth joint


def moves(message, hand) -> bool:
    """Return whether a command moves the arm; a target where the hand is does not."""
    if isinstance(message, PoseStamped):
        return not np.allclose(pose_to_numpy(message).position_m, hand, atol=1e-9)
    if isinstance(message, Float64MultiArray):
        return any(message.data)
    return bool(np.any(np.concatenate(twist_to_numpy(message))))


@pytest.mark.parametrize(
    ("output", "topic", "kind"),
    [
        ("twist", "twist_cmd", None),  # the client receives it already
        ("pose", "target_pose", PoseStamped),
        ("array", "velocity_cmd", Float64MultiArray),
    ],
)
def test_the_last_motion_follows_a_fault_within_150_ms(output, topic, kind, client: Client, checkpoint_path, tmp_path):
    if kind:
        client.create_subscription(kind, topic, lambda message: client.received.append((topic, message)), 100)
    settings = {"arm": "unknown", "autostart": True, "sampling": "mode", "output": output}
    times_ms = []
    with NodeProcesses([policy_node(checkpoint_path, **settings)], tmp_path) as nodes:
        client.wait_until_active()
        client.sensors.reset()
        for _ in range(FAULTS):
            run(client)
            client.wait(lambda: any(moves(m, client.hand) for m in client.of(topic)), "motion")
            client.positions[5] = NEAR_ITS_LIMIT_RAD
            sent = client.sent
            client.wait(lambda n=sent: client.sent > n, "the position near the limit")
            since_ns = last_ns = client.sent_ns["joint_states"]
            client.received.clear()
            while client.get_clock().now().nanoseconds < since_ns + 3 * STOP_MS * 1_000_000:
                client.spinner.spin_once(timeout_sec=0.01)
                if any(moves(m, client.hand) for m in client.of(topic)):
                    last_ns = client.get_clock().now().nanoseconds
                client.received = [item for item in client.received if item[0] != topic]
            client.wait_for_state(PolicyStatus.FAULT, "panda_joint6")
            times_ms.append((last_ns - since_ns) / 1e6)
            client.positions[5] = FREE_RAD
            sent = client.sent
            client.wait(lambda n=sent: client.sent > n + 3, "good sensor data")
            assert client.call("reset_fault").success
            client.wait_for_state(PolicyStatus.IDLE)
        nodes.check()
    print(f"{output}: {FAULTS} faults, median {statistics.median(times_ms):.0f} ms, maximum {max(times_ms):.0f} ms")
    assert statistics.median(times_ms) <= STOP_MS
