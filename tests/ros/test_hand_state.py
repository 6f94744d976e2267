"""A robot of poses over real ROS 2: the pose of its hand is observed, it follows target poses, and it is recorded."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from harness import START_LIMIT_S, WIDE_LIMITS, policy_node
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from recorder_client import recorder_node
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from test_recorder_parity import equal_bits, tensors

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses, command_line
from m2distill_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from m2distill_policy.models import Policy, small
from m2distill_policy.observations.poses import Pose, displace
from m2distill_policy.robot import robot_from_settings
from m2distill_policy.ros.common import conversions
from m2distill_policy.safety.arm_presets import load_arm
from m2distill_policy.spec import HAND_DOWN
from m2distill_training.data.rosbag.bag_import import import_bags
from m2distill_training.data.store import Store, open_store

INSTRUCTION, STEPS = "wave", 12
ARM = """
frame_id: base
cameras: [top]
image_px: 32
state: hand
ee_pose_topic: robot/tcp
output: pose
gripper_output: none
linear_gain: 1.0
angular_gain: 1.0
fade_in_s: 0.0
max_linear_m_s: 10.0
max_angular_rad_s: 100.0
max_first_linear_m_s: 10.0
max_first_angular_rad_s: 100.0
max_linear_step_m_s: 20.0
max_angular_step_rad_s: 200.0
"""


class Robot(Node):
    """Drivers of a camera and of an arm that reports the pose of its hand, in quaternions of alternating signs."""

    def __init__(self):
        super().__init__("pose_robot")
        sensor = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        self.image = self.create_publisher(Image, "top/image_raw", sensor)
        self.pose = self.create_publisher(PoseStamped, "robot/tcp", sensor)
        self.targets: list[PoseStamped] = []
        self.create_subscription(PoseStamped, "target_pose", self.targets.append, 10)
        self.frame_id, self.shown = "base", 0

    def close(self) -> None:
        """Nothing outlives the node."""

    def show(self) -> None:
        stamp_ns, self.shown = self.get_clock().now().nanoseconds, self.shown + 1
        swing = np.array([0.3 * np.sin(self.shown / 5), 0.1, 0.0])
        pose = displace(Pose(np.array([0.4, 0.0, 0.3]), np.array(HAND_DOWN)), np.zeros(3), swing)
        message = PoseStamped()
        message.header.stamp, message.header.frame_id = conversions.stamp_from_ns(stamp_ns), self.frame_id
        at, quat = message.pose.position, message.pose.orientation
        at.x, at.y, at.z = pose.position_m.tolist()
        quat.x, quat.y, quat.z, quat.w = (pose.quat_xyzw * (-1) ** self.shown).tolist()
        self.pose.publish(message)
        pixels = np.full((32, 32, 3), self.shown % 256, np.uint8)
        self.image.publish(conversions.image_from_numpy(pixels, stamp_ns, "top"))


@pytest.fixture
def arm_path(tmp_path) -> Path:
    path = tmp_path / "poses.yaml"
    path.write_text(ARM + WIDE_LIMITS)
    return path


@pytest.fixture
def checkpoint_path(arm_path, tmp_path) -> Path:
    """An untrained policy of this robot."""
    spec = robot_from_settings(load_arm(str(arm_path))).spec()
    weights = Policy(small(), spec).state_dict()
    save_checkpoint(tmp_path / "hand", Checkpoint(spec, small(), weights, {INSTRUCTION: np.ones(1, np.float32)}))
    return tmp_path / "hand"


def test_the_pose_of_the_hand_is_served_recorded_and_imported_bit_for_bit(
    client, make_node, arm_path, checkpoint_path, tmp_path
):
    client.leave_sensors_to_the_simulator()
    robot = make_node(Robot)
    client.spinner.add_node(robot)
    witnessed = tmp_path / "witnessed"
    witnessed.mkdir()
    policy = policy_node(checkpoint_path, arm=str(arm_path), autostart=True)
    recorder = recorder_node("", tmp_path / "episodes", arm=str(arm_path), max_gap_s=60.0)
    timer = client.create_timer(0.05, robot.show)
    with NodeProcesses([recorder], tmp_path / "log") as nodes:
        witness = str(Path(__file__).with_name("witness_node.py"))
        node = subprocess.Popen(
            [sys.executable, witness, str(witnessed), *command_line(policy)[3:]], env=nodes.environment
        )
        try:
            services = {name: client.create_client(Trigger, f"recorder/{name}") for name in ("start", "keep")}
            client.wait(lambda: robot.pose.get_subscription_count() == 2, "policy and recorder", START_LIMIT_S)
            client.wait(lambda: client.status and client.status.reason == "no instruction", "activation", START_LIMIT_S)
            client.wait(lambda: client.begin_episode(services["start"]), "an episode")
            client.instruct(INSTRUCTION)
            client.wait(lambda: len(client.of("policy/action")) > STEPS, "actions")
            client.instruct("")
            client.wait_for_state(PolicyStatus.IDLE)
            kept = client.ask(services["keep"], Trigger.Request(), "keep")
            assert kept.success, kept.message
            robot.frame_id = "elsewhere"
            client.instruct(INSTRUCTION)
            reason = "ee_pose: is in the frame 'elsewhere', expected 'base'; the checkpoint observes it there"
            client.wait_for_state(PolicyStatus.HOLDING, reason)
            client.destroy_timer(timer)
        finally:
            node.terminate()
            node.wait()
            client.spinner.remove_node(robot)
    assert robot.targets and robot.targets[-1].header.frame_id == "base"
    check_import(tmp_path, checkpoint_path, witnessed)


def check_import(tmp_path: Path, checkpoint_path: Path, witnessed: Path) -> None:
    """Assert that every input and every action of the node is a step of the import."""
    (report,) = import_bags(list((tmp_path / "episodes").glob("2*")), tmp_path / "data")
    spec = load_checkpoint(checkpoint_path).spec
    store = open_store(tmp_path / "data" / report.file, spec, "before")
    seen = [np.load(path) for path in sorted(witnessed.iterdir(), key=lambda path: int(path.stem))]
    steps = iter(range(report.steps))
    assert len(seen) > STEPS
    for tick, live in enumerate(seen):
        assert any(is_step(live, store, step) for step in steps), (tick, report)
    assert seen[0]["joint"].shape[-1] == 6 and seen[0]["gripper"].shape[-1] == 0


def is_step(live: Mapping[str, np.ndarray], store: Store, step: int) -> bool:
    """Return whether a step has the inputs and the motion of the node."""
    same = all(equal_bits(live[name], array) for name, array in tensors(store, step).items())
    return same and np.allclose(store.action[step, :6], np.clip(live["action"][:6], -1, 1), rtol=0, atol=1e-6)
