"""A simulated UR5e from its arm file alone: teleoperated, recorded, imported, learned, promoted and driven.

It has six joints, a gripper with one joint in radians, and two cameras of 4:3 with topics of their own.
"""

import dataclasses
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from harness import START_LIMIT_S, WIDE_LIMITS, policy_node
from rclpy.node import Node
from rclpy.qos import QoSProfile
from recorder_client import recorder_node
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.cameras import Camera
from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.recording.episode_topics import camera_info
from m2distill_policy.ros.common import conversions
from m2distill_sim import lift
from m2distill_sim.arm_env import ArmEnv, SimObservation
from m2distill_sim.lift_env import make_env
from m2distill_sim.renderer import Renderer
from m2distill_sim.suites import find_task
from m2distill_training.data.libero.reader import open_libero
from m2distill_training.data.rosbag.bag_import import import_bags
from m2distill_training.data.rosbag.bag_messages import open_bag
from m2distill_training.engine.train import train
from m2distill_training.presets import debug
from m2distill_training.promotion.promotion import promote
from m2distill_training.promotion.thresholds import Thresholds

JOINTS = [f"{name}_joint" for name in ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")]
TOPICS = {"front": "/front_camera/color/image_raw", "hand": "hand/image"}
ARM = f"""
joint_names: {JOINTS}      # their limits are the published ones
frame_id: base_link
cameras: {[*TOPICS]}
camera_topics: {[*TOPICS.values()]}
image_px: 32
joint_states_topic: ur/joint_states
gripper_joint_names: [finger_joint]   # Robotiq 2F-85
gripper_joint_open: [0.0]
gripper_joint_closed: [0.8]
gripper_open_width_m: 0.085
linear_gain: 1.0
angular_gain: 1.0
max_first_linear_m_s: 1.0
max_first_angular_rad_s: 5.0
"""
HEIGHT, WIDTH, STEPS, PERIOD_NS = 60, 80, 24, 50_000_000
ABOVE_M = np.array([0.0, 0.0, 0.1])
INSTRUCTION = "lift the cube with the other arm"


@dataclass(frozen=True)
class Moment:
    """What the robot shows, and the command of its operator."""

    seen: SimObservation
    linear_m_s: np.ndarray
    width_m: float


def demonstration() -> list[Moment]:
    """Drive robosuite's UR5e above the cube, down, and close its gripper."""
    views = [Camera("front", sim_camera="frontview"), Camera("hand", sim_camera="robot0_eye_in_hand")]
    sizes = {view.name: (HEIGHT, WIDTH) for view in views}
    moments = []
    with ArmEnv(find_task(lift.SUITE, lift.NAME), lift.assets(), make_env("UR5e"), sizes, False, views) as arm:
        arm._renderer = Renderer(arm.model, HEIGHT, WIDTH, plain=True)  # convex hulls are drawn ten times as fast
        seen = arm.reset(arm.state(), settle_steps=0)
        for step in range(STEPS):
            away = arm.data.body("cube_main").xpos + ABOVE_M * (step < STEPS / 2) - seen.ee_pos
            action = np.array([*np.clip(10 * away, -1, 1), 0, 0, 0, 1.0 if step > STEPS - 8 else -1.0])
            moments.append(Moment(seen, action[:3], 0.0 if action[6] > 0 else 0.085))
            seen = arm.step(action)
    assert moments[0].seen.joint_positions.shape == (6,)
    return moments


class Robot(Node):
    """Drivers of the arm, its gripper and its cameras, and its operator."""

    def __init__(self):
        super().__init__("ur_drivers")
        self.images = {name: self.create_publisher(Image, topic, 10) for name, topic in TOPICS.items()}
        self.info = self.create_publisher(CameraInfo, "/front_camera/color/camera_info", 10)
        self.joints = self.create_publisher(JointState, "ur/joint_states", 10)
        self.twists = self.create_publisher(TwistStamped, "twist_cmd", QoSProfile(depth=10))
        self.grips = self.create_publisher(Float64, "gripper_cmd", 10)
        self.texts = self.create_publisher(String, "instruction", 10)

    def close(self) -> None:
        """Nothing outlives the node."""

    def show(self, moment: Moment, stamp_ns: int) -> None:
        """Publish images, calibration and joints, with a joint that is none of the policy's."""
        positions = [*moment.seen.joint_positions, moment.seen.gripper_positions[0], 9.0]
        names = [*JOINTS, "finger_joint", "lift_joint"]
        for name, pub in self.images.items():
            pub.publish(conversions.image_from_numpy(moment.seen.images[name], stamp_ns, name))
        info = CameraInfo(width=WIDTH, height=HEIGHT)
        info.header.stamp = conversions.stamp_from_ns(stamp_ns)
        self.info.publish(info)
        self.joints.publish(conversions.joint_state_from_numpy(names, np.array(positions), stamp_ns))

    def drive(self, moment: Moment, stamp_ns: int) -> None:
        self.grips.publish(Float64(data=moment.width_m))
        self.twists.publish(conversions.twist_from_numpy(moment.linear_m_s, np.zeros(3), stamp_ns, "base_link"))


@pytest.fixture
def arm_path(tmp_path) -> Path:
    path = tmp_path / "ur5e.yaml"
    path.write_text(ARM + WIDE_LIMITS)
    return path


def test_a_six_joint_arm_from_its_file_alone(client, make_node, arm_path, tmp_path):
    client.leave_sensors_to_the_simulator()
    moments = demonstration()
    robot = make_node(Robot)
    episodes = record(client, robot, moments, arm_path, tmp_path)
    (again,) = (shutil.copytree(bag, episodes / "again") for bag in episodes.glob("2*"))
    report, other_report = import_bags([*episodes.glob("2*"), again], tmp_path / "data")
    assert report.steps == other_report.steps
    file = tmp_path / "data" / report.file
    check_import(file, moments)
    config = debug()
    config = dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, budget=2, budget_unit="steps"),
        replay=dataclasses.replace(config.replay, held_out_demos=1),
    )
    run = train(
        config,
        [
            file,
        ],
        tmp_path / "run",
    )
    spec = load_checkpoint(run.checkpoint(1)).spec
    assert (spec.joint_names, spec.gripper_joint_names) == (tuple(JOINTS), ("finger_joint",))
    assert [camera.name for camera in spec.cameras] == ["front", "hand"] and spec.action.frame_id == "base_link"
    other = tmp_path / "other.yaml"
    other.write_text((ARM + WIDE_LIMITS).replace("elbow_joint", "knee_joint").replace("# their", "# not their"))
    thresholds = Thresholds()
    with pytest.raises(UserError, match="for another robot than arm .*other.yaml: its joint_names is .*'elbow_joint'"):
        promote(run.path, thresholds=thresholds, suites=(), arm=str(other))
    assert promote(run.path, thresholds=thresholds, suites=(), arm=str(arm_path)).stage == 1
    drive(client, robot, moments, run.checkpoint(1), arm_path, other, tmp_path)


def record(client, robot: Robot, moments: list[Moment], arm_path: Path, tmp_path: Path) -> Path:
    """Record the demonstration with a recorder that has the arm file alone."""
    node = recorder_node("", tmp_path / "episodes", arm=str(arm_path), max_gap_s=60.0)
    with NodeProcesses([node], tmp_path / "recorder") as nodes:
        services = {name: client.create_client(Trigger, f"recorder/{name}") for name in ("start", "keep")}
        publishers = (*robot.images.values(), robot.info, robot.joints, robot.twists, robot.grips, robot.texts)
        client.wait(lambda: all(pub.get_subscription_count() for pub in publishers[:3]), "its topics", START_LIMIT_S)
        client.wait(lambda: all(s.service_is_ready() for s in services.values()), "the recorder", START_LIMIT_S)
        client.wait(lambda: all(pub.get_subscription_count() for pub in publishers), "its subscriptions")

        def ask(name: str) -> Trigger.Response:
            return client.ask(services[name], Trigger.Request(), name)

        client.wait(lambda: ask("start").success or ask("keep") is None, "an episode")
        robot.texts.publish(String(data=INSTRUCTION))
        begin_ns = robot.get_clock().now().nanoseconds
        for step, moment in enumerate(moments):
            robot.show(moment, begin_ns + step * PERIOD_NS)
            robot.drive(moment, begin_ns + step * PERIOD_NS)
            time.sleep(0.02)
        kept = ask("keep")
        assert kept.success, kept.message
        nodes.check()
    (path,) = (tmp_path / "episodes").glob("2*")
    with open_bag(path) as bag:
        assert json.loads(bag.labels["camera_info"])["front"]["width"] == WIDTH
        assert bag.find(camera_info("front"))
    return tmp_path / "episodes"


def check_import(file: Path, moments: list[Moment]) -> None:
    """Assert that the demonstration is the robot's: joints, gripper, actions and cropped images."""
    cameras = [Camera("front"), Camera("hand")]
    with open_libero(file, "as_stored", cameras) as demos:
        demo, _ = demos.demos()
        assert demos.robot.joint_names == tuple(JOINTS) and demos.instruction == INSTRUCTION
    assert demo.joint.shape[1] == 6 and demo.gripper.shape[1] == 1 and len(demo.joint) >= STEPS - 3
    shown = np.array([moment.seen.joint_positions for moment in moments], np.float32)
    assert all((row == shown).all(axis=1).any() for row in demo.joint)
    assert {1.0, -1.0} == set(demo.action[:, 6])
    assert demo.images["front"].shape[1:] == (32, 32, 3)
    left = (WIDTH - HEIGHT) // 2
    middle = moments[5].seen.images["front"][:, left : left + HEIGHT].mean()
    assert demo.images["front"][5].mean() == pytest.approx(middle, abs=3)


def drive(client, robot: Robot, moments, checkpoint: Path, arm_path: Path, other: Path, tmp_path: Path) -> None:
    """The policy acts on the robot; the node of another robot's file ends with one line."""
    client.received.clear()
    robot.destroy_publisher(robot.twists)
    robot.destroy_publisher(robot.grips)

    def node(file: Path, namespace: str = ""):
        description = policy_node(checkpoint, arm=str(file), sampling="mode", autostart=True)
        return dataclasses.replace(description, namespace=namespace)

    timer = client.create_timer(0.05, lambda: robot.show(moments[3], robot.get_clock().now().nanoseconds))
    with (
        NodeProcesses([node(arm_path)], tmp_path / "policy") as nodes,
        NodeProcesses([node(other, "other")], tmp_path / "other") as others,
    ):
        client.wait(client.command.service_is_ready, "the policy", START_LIMIT_S)
        client.wait(lambda: client.status and client.status.reason == "no instruction", "an active node", START_LIMIT_S)
        client.wait(robot.joints.get_subscription_count, "its subscriptions")
        client.instruct(INSTRUCTION)
        client.wait_for_state(PolicyStatus.RUNNING)
        client.wait(lambda: len(client.of("policy/action")) >= 5, "actions")
        client.wait_for_motion(True)
        assert client.of("twist_cmd")[-1].header.frame_id == "base_link"
        assert 0 <= client.of("gripper_cmd")[-1].data <= 0.085
        nodes.check()
        log = others.log_path("policy")
        client.wait(lambda: "is for another robot than arm" in log.read_text(), "the reason", START_LIMIT_S)
        assert "Traceback" not in log.read_text()
    client.destroy_timer(timer)
