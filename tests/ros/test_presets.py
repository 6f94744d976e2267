"""Each preset of a real arm drives a small simulated one: its joints, frames, limits and outputs.

The node runs in this process. The arm follows every command exactly.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from geometry_msgs.msg import PoseStamped, TransformStamped, TwistStamped
from harness import CAMERAS, KNOWN, Client
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from tf2_msgs.msg import TFMessage

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.checkpoint import Checkpoint, save_checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.models import Policy, small
from m2distill_policy.robot import robot_from_settings
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.nodes import policy_node
from m2distill_policy.ros.nodes.policy_node import PolicyNode
from m2distill_policy.safety.arm_presets import arm_names, limits_of, load_arm
from m2distill_policy.spec import libero_spec

REAL = [name for name in arm_names() if name not in ("libero_sim", "unknown")]
START_M = np.array([0.5, 0.0, 0.4])
JOINTS_RAD = {7: [0.0, -0.5, 0.1, -2.0, 0.2, 1.5, 0.8], 6: [0.0, -1.5, 1.5, -1.5, -1.5, 0.0]}
PATIENT = {"max_age_s": 2.0, "max_skew_s": 2.0, "watchdog_s": 5.0, "command_timeout_s": 5.0}  # for a busy machine


class Arm(Node):
    """Driver of one arm: it follows twists or target poses, and publishes joints, and its hand by TF or as ee_pose."""

    def __init__(self, client: Client, settings: dict):
        super().__init__("arm_driver", enable_rosout=False)
        self.client, self.settings, self.hand = client, settings, START_M.copy()
        self.robot = robot_from_settings(settings)
        self.twists: list[TwistStamped] = []
        self.targets: list[PoseStamped] = []
        self.create_subscription(TwistStamped, "twist_cmd", self._on_twist, 100)
        self.create_subscription(PoseStamped, "target_pose", self._on_target, 100)
        self.frames = self.create_publisher(TFMessage, "tf", 100) if settings.get("ee_frame") else None
        client.frame_id = self.robot.frame_id
        self.create_timer(0.05, self.sense)

    def _on_twist(self, message: TwistStamped) -> None:
        self.twists.append(message)
        self.hand += conversions.twist_to_numpy(message)[0] * 0.05

    def _on_target(self, message: PoseStamped) -> None:
        self.targets.append(message)
        place = message.pose.position
        self.hand = np.array([place.x, place.y, place.z])

    def sense(self) -> None:
        now_ns = self.get_clock().now().nanoseconds
        names = [*self.robot.joint_names, *self.robot.parameters.gripper_joint_names]
        fingers = [0.02] * len(self.robot.parameters.gripper_joint_names)
        positions = np.array([*JOINTS_RAD[len(self.robot.joint_names)], *fingers])
        self.client.joints_pub.publish(conversions.joint_state_from_numpy(names, positions, now_ns))
        self.client.positions = None
        if self.frames is not None:
            edge = TransformStamped(child_frame_id=self.settings["ee_frame"])
            edge.header.frame_id, edge.header.stamp = self.robot.frame_id, conversions.stamp_from_ns(now_ns)
            shift, edge.transform.rotation.w = edge.transform.translation, 1.0
            shift.x, shift.y, shift.z = self.hand.tolist()
            self.frames.publish(TFMessage(transforms=[edge]))
        self.client.hand = None if self.frames is not None else self.hand.tolist()
        self.client.sense(now_ns)


def checkpoint(settings: dict, path) -> str:
    """Save an untrained policy for the robot of an arm file."""
    torch.manual_seed(0)
    robot = robot_from_settings(settings)
    spec = robot.spec()
    cameras = tuple(dataclasses.replace(camera, height=64, width=64) for camera in spec.cameras)
    spec = dataclasses.replace(spec, cameras=cameras, text_encoder="none", text_width=8)
    instructions = {KNOWN[0]: np.ones(8, np.float32)}
    save_checkpoint(path, Checkpoint(spec, small(), Policy(small(), spec).state_dict(), instructions))
    return str(path)


@pytest.fixture
def make_policy(ros, client, monkeypatch) -> Iterator[Callable[..., PolicyNode]]:
    """Function that creates an active policy node in this process, spun with the client."""
    init, nodes = LifecycleNode.__init__, []
    monkeypatch.setattr(policy_node, "DISCOVERY_S", 0.5)

    def make(**parameters) -> PolicyNode:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        monkeypatch.setattr(
            LifecycleNode, "__init__", lambda self, name: init(self, name, parameter_overrides=overrides)
        )
        node = PolicyNode()
        nodes.append(node)
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, node.problem
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS, node.problem
        client.spinner.add_node(node)
        return node

    yield make
    for node in nodes:
        client.spinner.remove_node(node)
        node.close()
        node.destroy_node()


@pytest.mark.parametrize("preset", REAL)
def test_a_preset_drives_its_arm(preset, client, make_policy, tmp_path):
    settings, limits = load_arm(preset), limits_of(preset)
    arm = Arm(client, settings)
    client.spinner.add_node(arm)
    make_policy(arm=preset, checkpoint=checkpoint(settings, tmp_path / "c"), sampling="mode", **PATIENT)
    client.wait_until_active()
    client.instruct(KNOWN[0])
    by_pose = settings["output"] == "pose"
    commands = arm.targets if by_pose else arm.twists
    client.wait_for_state(PolicyStatus.RUNNING)
    client.wait(lambda: len(client.of("policy/action")) >= 15, "commands, fade-in included")
    assert {message.header.frame_id for message in commands} == {arm.robot.frame_id}
    assert np.linalg.norm(arm.hand - START_M) > 0.001
    assert (arm.hand >= np.array(limits.workspace_min_m) - 1e-6).all()
    assert (arm.hand <= np.array(limits.workspace_max_m) + 1e-6).all()
    assert client.count_publishers("twist_cmd" if by_pose else "target_pose") == 0
    assert client.of("gripper_cmd") and 0 <= client.of("gripper_cmd")[-1].data <= 0.085
    if not by_pose:
        speeds = [np.linalg.norm(conversions.twist_to_numpy(twist), axis=1) for twist in arm.twists]
        assert (np.max(speeds, axis=0) <= (limits.max_linear_m_s + 1e-9, limits.max_angular_rad_s + 1e-9)).all()
        answered = {conversions.stamp_to_ns(action.header.stamp) for action in client.of("policy/action")}
        moving = {conversions.stamp_to_ns(twist.header.stamp) for twist in arm.twists if twist.twist.linear.x}
        assert moving and not moving & answered  # Servo ignores twists that are as old as their observation
    client.instruct("")
    client.wait_for_state(PolicyStatus.IDLE)
    client.spinner.remove_node(arm)
    arm.destroy_node()


def test_a_preset_names_the_joints_of_its_arm_and_rejects_the_checkpoint_of_another_one():
    """The presets of the Panda accept what was trained in simulation."""
    specs = {preset: robot_from_settings(load_arm(preset)).spec() for preset in REAL}
    assert {len(spec.joint_names) for spec in specs.values()} == {6, 7}
    assert [camera.name for camera in specs["fr3_servo"].cameras] == [*CAMERAS]
    for preset in ("franka_servo", "franka_impedance"):
        robot_from_settings(load_arm(preset)).check(libero_spec(), preset)
    for preset in ("fr3_servo", "fr3_impedance", "ur_servo"):
        with pytest.raises(UserError, match=f"for another robot than arm {preset}: its joint_names is"):
            robot_from_settings(load_arm(preset)).check(libero_spec(), preset)
