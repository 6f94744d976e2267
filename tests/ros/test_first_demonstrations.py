"""A lab without a checkpoint teaches first: recorder and teleoperation start without the policy."""

import subprocess
import sys

import numpy as np
import psutil
import pytest
from harness import START_LIMIT_S, Client
from rclpy.qos import qos_profile_sensor_data
from recorder_client import Recorder
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import Image, Joy
from tf2_msgs.msg import TFMessage

from m2distill_policy.bringup.launch_config import PolicyLaunchConfig, SystemLaunchConfig
from m2distill_policy.bringup.system import missing_policy, next_step, policy_nodes, system_nodes
from m2distill_policy.errors import UserError
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.policy.hand_frames import STATIC
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS
from m2distill_training.data.libero.reader import open_libero
from m2distill_training.data.rosbag.bag_import import import_bags

INSTRUCTION = "put the cup on the shelf"
OWN = "extends: fr3_servo  # with its own camera\ncameras: [front]\ncamera_topics: [/cam/image]\nimage_px: 32\n"


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


class Operator:
    """An FR3 with one camera, and the person who holds the joystick."""

    def __init__(self, client: Client):
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
        joy = Joy(axes=[0.5, 0.7, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], buttons=buttons)
        joy.header.stamp = conversions.stamp_from_ns(now_ns)
        self.joy.publish(joy)
        self.tf.publish(TFMessage())


def test_an_arm_without_a_checkpoint_is_teleoperated_recorded_and_imported(client, tmp_path):
    (tmp_path / "arm.yaml").write_text(OWN)
    command = [sys.executable, "-m", "m2distill_policy.bringup.system", "--arm", str(tmp_path / "arm.yaml")]
    command += ["--record", str(tmp_path / "episodes"), "--teleop", "--log-dir", str(tmp_path / "log")]
    with (tmp_path / "out").open("w") as out:
        system = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    operator, recorder = Operator(client), Recorder(client)
    try:
        client.wait(lambda: recorder.diagnostics_of() and client.of("twist_cmd"), "both nodes", START_LIMIT_S)
        client.wait(operator.camera.get_subscription_count, "the recorder's camera")
        assert client.of("twist_cmd")[-1].header.frame_id == "fr3_link0"
        client.wait(lambda: recorder("start").success or recorder("keep") is None, "an episode")
        recorder.command(f"instruction {INSTRUCTION}", lambda: True)
        moved = len(client.of("twist_cmd"))
        client.wait(lambda: len(client.of("twist_cmd")) > moved + 30, "motion")
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
    assert counts["/tf"] > 10 and counts["/tf_static"] == 1 and "/ee_pose" not in counts
    (report,) = import_bags([tmp_path / "episodes"], tmp_path / "data")
    with open_libero(tmp_path / "data" / report.file, "as_stored", ["front"]) as demos:
        assert demos.instruction == INSTRUCTION and demos.robot.joint_names[0] == "fr3_joint1"
