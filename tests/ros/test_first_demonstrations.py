"""A lab without a checkpoint teaches first: recorder and teleoperation start without the policy."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from geometry_msgs.msg import PoseStamped, TransformStamped
from harness import START_LIMIT_S, Client
from rclpy.qos import qos_profile_sensor_data
from recorder_client import Recorder
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import Image, Joy
from tf2_msgs.msg import TFMessage

from m2distill_policy.bringup.launch_config import PolicyLaunchConfig, SystemLaunchConfig
from m2distill_policy.bringup.system import missing_policy, next_step, policy_nodes, system_nodes
from m2distill_policy.cameras import find_camera
from m2distill_policy.errors import UserError
from m2distill_policy.observations.poses import Pose
from m2distill_policy.recording.episode import LABELS, OPEN
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.policy.hand_frames import STATIC
from m2distill_policy.spec import HAND_DOWN, PANDA_FINGERS, PANDA_JOINTS
from m2distill_training.data.libero.reader import open_libero
from m2distill_training.data.rosbag.bag_import import import_bags

INSTRUCTION = "put the cup on the shelf"
OWN = "extends: {preset}  # with its own camera\ncameras: [front]\ncamera_topics: [/cam/image]\nimage_px: 32\n"


def test_everything_but_the_policy_is_chosen_and_one_line_states_it(tmp_path):
    config = SystemLaunchConfig(arm="fr3_servo", record=str(tmp_path), teleop=True, dashboard=True)
    nodes = system_nodes(config)
    assert [node.name for node in nodes] == ["recorder", "teleop", "dashboard"]
    recorder, teleop, _ = nodes
    assert recorder.parameters["checkpoint"] == "" and teleop.parameters == {"arm": "fr3_servo"}
    line = missing_policy(config)
    assert line.startswith("no checkpoint: the policy is not started; record demonstrations") and "\n" not in line
    for acting in (SystemLaunchConfig(), PolicyLaunchConfig(checkpoint="c", arm="ur_servo")):
        assert missing_policy(acting) == ""
    with_policy = policy_nodes(PolicyLaunchConfig(checkpoint="c", arm="fr3_servo", teleop=True))
    assert [node.name for node in with_policy] == ["policy", "teleop"]


def test_a_robot_that_is_not_described_cannot_be_recorded_and_the_line_names_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="the arm has no cameras and no joint_names and no frame_id; add them"):
        policy_nodes(PolicyLaunchConfig(arm="unknown", record=str(tmp_path)))
    with pytest.raises(UserError, match="no checkpoint for ur_servo; set .*, or set record and teleop"):
        policy_nodes(PolicyLaunchConfig(arm="ur_servo"))


@pytest.mark.parametrize(
    ("chosen", "step"),
    [
        ({}, "m2distill instruct TEXT in another terminal"),
        ({"dashboard": True}, "m2distill instruct TEXT in another terminal, or open http://127.0.0.1:8770"),
        ({"checkpoint": "c", "arm": "ur_servo", "namespace": "left"}, "m2distill instruct --namespace left TEXT in"),
        ({"arm": "ur_servo", "record": "episodes"}, "m2distill service recorder/start in another terminal, record dem"),
        ({"arm": "ur_servo", "record": "e", "dashboard": True}, "open http://127.0.0.1:8770, record demonstrations"),
        ({"arm": "ur_servo", "teleop": True}, "move the arm; to record demonstrations, start again with --record"),
    ],
)
def test_the_next_step_is_one_that_the_nodes_can_do(chosen, step):
    """Without a policy nobody can be instructed."""
    line = next_step(SystemLaunchConfig(**chosen))
    assert line.startswith(step) and "\n" not in line
    assert ("instruct" in line) == (SystemLaunchConfig(**chosen).arm == "libero_sim" or "checkpoint" in chosen)


def labelled(folder: Path) -> bool:
    """Return whether an open episode has the instruction."""
    return any(INSTRUCTION in path.read_text() for path in folder.glob(f"*/{LABELS}"))


class Operator:
    """An FR3 with one camera, and the person who holds the joystick. Its hand, known by TF, is where it is sent."""

    def __init__(self, client: Client):
        self.axes = [0.0] * 8
        self.hand = conversions.pose_from_numpy(Pose(np.array([0.5, 0.0, 0.4]), np.array(HAND_DOWN)), 0, "fr3_link0")
        client.create_subscription(PoseStamped, "target_pose", self.follow, 100)
        client.destroy_publisher(client.image_pubs.pop("wrist"))
        client.destroy_publisher(client.image_pubs.pop("agentview"))
        client.sizes = {}
        self.client, self.rng = client, np.random.default_rng(0)
        self.camera = client.create_publisher(Image, "/cam/image", qos_profile_sensor_data)
        self.joy = client.create_publisher(Joy, "joy", 1)
        self.tf = client.create_publisher(TFMessage, "tf", 100)
        client.create_publisher(TFMessage, "tf_static", STATIC).publish(TFMessage())
        self.timer = client.create_timer(0.05, self.act)
        self.joints = [*(n.replace("panda", "fr3") for n in (*PANDA_JOINTS, *PANDA_FINGERS))]

    def act(self) -> None:
        now_ns = self.client.get_clock().now().nanoseconds
        names, positions = self.joints, self.client.positions
        self.client.joints_pub.publish(conversions.joint_state_from_numpy(names, positions, now_ns))
        pixels = self.rng.integers(0, 255, (32, 32, 3), np.uint8)
        self.camera.publish(conversions.image_from_numpy(pixels, now_ns, "cam"))
        buttons = [0] * 12
        buttons[4] = buttons[0] = 1  # the deadman and the gripper
        joy = Joy(axes=self.axes, buttons=buttons)
        joy.header.stamp = conversions.stamp_from_ns(now_ns)
        self.joy.publish(joy)
        self.show_hand()

    def show_hand(self) -> None:
        edge, pose = TransformStamped(child_frame_id="fr3_hand_tcp"), self.hand.pose
        edge.header.frame_id, edge.header.stamp = "fr3_link0", self.client.get_clock().now().to_msg()
        shift, edge.transform.rotation = edge.transform.translation, pose.orientation
        shift.x, shift.y, shift.z = pose.position.x, pose.position.y, pose.position.z
        self.tf.publish(TFMessage(transforms=[edge]))

    def follow(self, message: PoseStamped) -> None:
        self.hand = message
        self.show_hand()
        self.client.received.append(("target_pose", message))


@pytest.mark.parametrize(
    ("preset", "topic", "gain"), [("fr3_servo", "twist_cmd", 0.25), ("fr3_impedance", "target_pose", 1.0)]
)
def test_an_arm_without_a_checkpoint_is_teleoperated_recorded_and_imported(client, tmp_path, preset, topic, gain):
    (tmp_path / "arm.yaml").write_text(OWN.format(preset=preset))
    command = [sys.executable, "-m", "m2distill_policy.bringup.system", "--arm", str(tmp_path / "arm.yaml")]
    command += ["--record", str(tmp_path / "episodes"), "--teleop", "--log-dir", str(tmp_path / "log")]
    with (tmp_path / "out").open("w") as out:
        system = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    operator, recorder = Operator(client), Recorder(client)
    try:
        client.wait(lambda: recorder.diagnostics_of() and client.of(topic), "both nodes", START_LIMIT_S)
        client.wait(operator.camera.get_subscription_count, "the recorder's camera")
        assert client.of(topic)[-1].header.frame_id == "fr3_link0"
        client.wait(lambda: recorder("start").success or recorder("keep") is None, "an episode")
        recorder.command(f"instruction {INSTRUCTION}", lambda: labelled(tmp_path / "episodes" / OPEN))
        operator.axes[:2] = 0.5, 0.7
        counted = f"/{topic} (messages)"  # the recorder may discover the topic later than this process
        client.wait(lambda: recorder.numbers(counted, 0) > 30, "recorded motion", START_LIMIT_S)
        kept = recorder("keep")
        assert kept.success, kept.message
    finally:
        system.terminate()
        psutil.Process(system.pid).wait(START_LIMIT_S)
    lines = (tmp_path / "out").read_text().splitlines()
    assert lines[0].startswith("no checkpoint: the policy is not started;")
    assert lines[1].startswith("running: recorder, teleop; logs in ")
    assert lines[2].startswith("next: m2distill service recorder/start in another terminal, ")
    assert lines[2].endswith(f"then m2distill import bag {tmp_path / 'episodes'} --out DATA")
    (bag,) = (tmp_path / "episodes").glob("2*")
    with AnyReader([bag]) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
    assert counts["/tf"] > 10 and counts["/tf_static"] == 1 and counts[f"/{topic}"] > 10
    by_pose = topic == "target_pose"  # then the import needs the hand's pose, which the recorder takes from TF
    assert counts["/ee_pose"] > 10 if by_pose else "/ee_pose" not in counts
    (report,) = import_bags([tmp_path / "episodes"], tmp_path / "data")
    with open_libero(tmp_path / "data" / report.file, "as_stored", [find_camera("front")]) as demos:
        assert demos.instruction == INSTRUCTION and demos.robot.joint_names[0] == "fr3_joint1"
        (demo,) = demos.demos()
    deflection = (np.array([0.7, 0.5]) - 0.05) / 0.95  # forward and left, beyond the dead zone
    commanded = 0.1 * deflection / (gain * 0.05 * 20)  # m/s, as a share of the full action
    given = demo.action[:, :2] / commanded
    np.testing.assert_allclose(given[:, 0], given[:, 1], atol=1e-3)
    np.testing.assert_allclose(given, np.round(given), atol=1e-3)  # a hand that was seen late is several steps behind
    assert 0.8 < given.mean() < 1.8 and round(np.median(given)) in (1, 2)
    np.testing.assert_allclose(demo.action[:, 2:], np.tile([0.0, 0.0, 0.0, 0.0, 1.0], (len(given), 1)), atol=1e-6)
