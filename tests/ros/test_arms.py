"""Presets of real arms, as far as they can be tested without one: the node respects their limits."""

import math

import numpy as np
import psutil
import pytest
from geometry_msgs.msg import PoseStamped
from harness import KNOWN, START_LIMIT_S, Client, policy_node
from lifecycle_msgs.msg import Transition

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.launch_config import PolicyLaunchConfig
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.bringup.system import policy_nodes
from m2distill_policy.ros.common.conversions import twist_to_numpy
from m2distill_policy.safety.arm_presets import limits_of
from m2distill_policy.spec import PANDA_JOINTS


def test_an_arm_from_a_file_drives_the_node_within_its_limits(client, checkpoint_path, tmp_path):
    """One file outside the package adds an arm: its frame, output, stamps and limits reach the commands."""
    file = tmp_path / "arms" / "my arm.yaml"
    file.parent.mkdir()
    file.write_text(
        "output: twist\ncommand_stamp: sending\nframe_id: my_base\nmax_linear_m_s: 0.03\nmax_angular_rad_s: 0.1\n"
        "linear_gain: 1.0\nangular_gain: 1.0\nmax_first_linear_m_s: 1.0\nmax_first_angular_rad_s: 5.0\n"
        "workspace_min_m: [-.inf, -.inf, -.inf]\nworkspace_max_m: [.inf, .inf, .inf]\n"
        f"joint_names: {list(reversed(PANDA_JOINTS))}\njoint_lower_rad: {[-6.0] * 7}\njoint_upper_rad: {[6.0] * 7}\n"
    )
    config = PolicyLaunchConfig(checkpoint=str(checkpoint_path), arm=str(file), sampling="mode")
    with NodeProcesses(policy_nodes(config), tmp_path) as nodes:
        client.wait_until_active()
        values = client.result(client.policy_parameters.get_parameters(["arm", "joint_names"]), "values").values
        assert values[0].string_value == str(file) and list(values[1].string_array_value) == list(
            reversed(PANDA_JOINTS)
        )
        client.sensors.reset()
        client.instruct(KNOWN[0])
        client.wait_for_motion(True)
        client.wait(lambda: len(client.of("policy/action")) >= 15, "commands, fade-in included")
        moving = [t for t in client.of("twist_cmd") if np.any(twist_to_numpy(t))]
        assert all(t.header.frame_id == "my_base" for t in moving)
        linear, angular = (np.linalg.norm([twist_to_numpy(t)[part] for t in moving], axis=1) for part in (0, 1))
        assert linear.max() == pytest.approx(0.03) and angular.max() == pytest.approx(0.1)
        nodes.check()


def test_a_wrong_arm_file_ends_the_node_with_one_line_and_status_2(tmp_path):
    file = tmp_path / "arm.yaml"
    file.write_text("frame_id: base\nmax_linear_mm_s: 100\n")
    with NodeProcesses([policy_node("c", arm=str(file))], tmp_path) as nodes:
        assert psutil.Process(nodes.pids["policy"]).wait(START_LIMIT_S) == 2
    log = nodes.log_path("policy").read_text()
    assert f"{file}:2: unknown key 'max_linear_mm_s'; did you mean 'max_linear_m_s' in m/s?" in log.splitlines()[-1]
    assert "Traceback" not in log


class Impedance:
    """An arm with the impedance preset: its node, and the targets that it receives, newest last."""

    def __init__(self, client: Client):
        self.client, self.targets = client, []
        client.create_subscription(PoseStamped, "target_pose", self.targets.append, 100)

    def node(self, checkpoint_path, log, **parameters) -> NodeProcesses:
        return NodeProcesses(
            [
                policy_node(
                    checkpoint_path, arm="franka_impedance", ee_frame="", sampling="mode", autostart=True, **parameters
                )
            ],
            log,
        )

    def away_m(self, hand) -> list[float]:
        """Return the distance of each target from a position."""
        return [np.linalg.norm(np.array([p.x, p.y, p.z]) - hand) for p in (t.pose.position for t in self.targets)]

    def run(self) -> None:
        """Wait until targets ahead of the hand arrive."""
        self.client.sensors.reset()
        self.client.instruct(KNOWN[0])
        self.client.wait_for_state(PolicyStatus.RUNNING)
        self.targets.clear()
        self.client.wait(lambda: len(self.targets) >= 10 and self.away_m(self.client.hand)[-1] > 0, "targets")

    def wait_for_stop(self, hand) -> None:
        self.client.wait(lambda: self.away_m(hand)[-1] == 0, "the hand's own pose as target")


@pytest.fixture
def impedance(client) -> Impedance:
    return Impedance(client)


def test_the_impedance_preset_aims_near_the_hand_and_holds_it_where_it_is(impedance, client, checkpoint_path, tmp_path):
    with impedance.node(checkpoint_path, tmp_path) as nodes:
        client.wait_until_active()
        impedance.run()
        assert 0 < max(impedance.away_m(client.hand)) <= limits_of("franka_impedance").max_linear_m_s / 20 + 1e-9
        client.instruct("")
        client.wait_for_state(PolicyStatus.IDLE)
        impedance.wait_for_stop(client.hand)
        assert client.count_publishers("twist_cmd") == 0
        nodes.check()


def test_invalid_or_missing_poses_hold_the_hand_at_its_last_pose(impedance, client, checkpoint_path, tmp_path):
    """The limit of age is one minute here, so that the silence is detected first."""
    hand, frame_id = client.hand, client.frame_id
    with impedance.node(
        checkpoint_path, tmp_path, max_age_s=60.0, max_skew_s=60.0, watchdog_s=0.2, command_timeout_s=10.0
    ) as nodes:
        client.wait_until_active()
        impedance.run()
        client.hand = [math.nan, 0.0, 0.3]
        client.wait_for_state(PolicyStatus.HOLDING, "ee_pose is not a valid pose")
        impedance.wait_for_stop(hand)
        client.hand = hand
        impedance.run()
        client.frame_id = "camera"
        client.wait_for_state(PolicyStatus.HOLDING, "in the frame 'camera'")
        impedance.wait_for_stop(hand)
        client.frame_id = frame_id
        impedance.run()
        client.sensors.cancel()
        client.wait_for_state(PolicyStatus.HOLDING, "silent")
        impedance.wait_for_stop(hand)
        nodes.check()


def test_an_arm_moved_while_its_pose_was_unknown_is_not_sent_to_an_old_pose(
    impedance, client, checkpoint_path, tmp_path
):
    with impedance.node(checkpoint_path, tmp_path) as nodes:
        client.wait_until_active()
        impedance.run()
        client.instruct("")
        client.wait_for_state(PolicyStatus.IDLE, "stopped")
        impedance.wait_for_stop(client.hand)
        client.hand = None  # a person takes the arm elsewhere
        silent_ns = client.sent_ns["ee_pose"] + 300_000_000
        client.wait(lambda: client.get_clock().now().nanoseconds > silent_ns, "longer than watchdog_s")
        impedance.targets.clear()
        assert client.call("reset_fault").success and client.call("stop").success
        client.instruct(KNOWN[0])
        client.wait_for_state(PolicyStatus.HOLDING, "ee_pose")
        assert client.transition(Transition.TRANSITION_DEACTIVATE)
        assert not impedance.targets
        assert "no target sent" in nodes.log_path("policy").read_text()
