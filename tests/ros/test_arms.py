"""The presets of real arms, as far as they can be tried without one: the node runs with them, within their limits."""

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from harness import KNOWN, policy_node

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.arms import limits_of
from m2distill_policy.bringup import NodeProcesses
from m2distill_policy.ros.messages import stamp_to_ns, twist_to_numpy


@pytest.mark.parametrize(("arm", "frame_id"), [("franka_servo", "panda_link0"), ("ur_servo", "base_link")])
def test_servo_presets_stamp_when_they_send_and_keep_their_limits(arm, frame_id, client, checkpoint_path, tmp_path):
    client.frame_id = frame_id
    limits = limits_of(arm)
    with NodeProcesses([policy_node(checkpoint_path, arm=arm, acting="mode_mean", autostart=True)], tmp_path) as nodes:
        client.wait_until_active()
        client.sensors.reset()
        client.say(KNOWN[0])
        client.wait_for_state(PolicyStatus.RUNNING)
        client.wait(lambda: len(client.of("policy/action")) >= 15, "commands, fade-in included")
        answered_ns = {stamp_to_ns(action.header.stamp) for action in client.of("policy/action")}
        moving = [t for t in client.of("twist_cmd") if np.any(twist_to_numpy(t))]
        assert moving and all(t.header.frame_id == frame_id for t in moving)
        assert not {stamp_to_ns(t.header.stamp) for t in moving} & answered_ns
        linear, angular = (np.linalg.norm([twist_to_numpy(t)[part] for t in moving], axis=1) for part in (0, 1))
        assert linear.max() <= limits.max_linear_m_s + 1e-9 and angular.max() <= limits.max_angular_rad_s + 1e-9
        nodes.check()


def test_the_impedance_preset_aims_near_the_hand_and_holds_it_where_it_is(client, checkpoint_path, tmp_path):
    targets: list[PoseStamped] = []
    client.create_subscription(PoseStamped, "target_pose", targets.append, 100)
    limits = limits_of("franka_impedance")
    description = policy_node(checkpoint_path, arm="franka_impedance", acting="mode_mean", autostart=True)
    with NodeProcesses([description], tmp_path) as nodes:
        client.wait_until_active()
        client.sensors.reset()
        client.say(KNOWN[0])
        client.wait_for_state(PolicyStatus.RUNNING)
        targets.clear()
        client.wait(lambda: len(targets) >= 10, "targets")
        away_m = [np.linalg.norm(np.array([p.x, p.y, p.z]) - client.hand) for p in (t.pose.position for t in targets)]
        assert 0 < max(away_m) <= limits.max_linear_m_s / 20 + 1e-9
        client.say("")
        client.wait_for_state(PolicyStatus.IDLE)
        client.wait(lambda: [getattr(targets[-1].pose.position, axis) for axis in "xyz"] == client.hand,
                    "the hand's own pose as target")
        assert client.count_publishers("twist_cmd") == 0
        nodes.check()
