"""The hand's pose by TF over real DDS: missing, stale and contradictory transforms hold the arm with the reason."""

import pytest
from geometry_msgs.msg import TransformStamped
from harness import Client, policy_node, run
from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.errors import UserError
from m2distill_policy.ros.policy import hand_frames
from m2distill_policy.ros.policy.hand_frames import STATIC, Frames, HandFrames

FILE = """
ee_frame: tcp
base_frame: /arm_base   # the same place as frame_id
max_age_s: 1.0
max_skew_s: 1.0
watchdog_s: 0.6
command_timeout_s: 5.0
max_joint_speed_rad_s: 0.0
"""


def edge(parent: str, child: str, stamp, x: float = 0.1) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id, message.header.stamp = parent, stamp
    message.transform.translation.x, message.transform.translation.z = x, 0.1
    message.transform.rotation.w = 1.0
    return message


class Driver(Node):
    """Publisher of transforms at 50 Hz: of the shoulder and the wrist by separate messages."""

    def __init__(self, name: str):
        super().__init__(name, enable_rosout=False)
        self.frames = {"shoulder": "arm_base", "wrist": "shoulder", "wheel": "odom"}
        self.pub = self.create_publisher(TFMessage, "tf", 100)
        self.static = self.create_publisher(TFMessage, "tf_static", STATIC)
        self.timer = self.create_timer(0.02, self.publish)

    def publish(self) -> None:
        now = self.get_clock().now().to_msg()
        for child, parent in self.frames.items():
            self.pub.publish(TFMessage(transforms=[edge(parent, child, now)]))

    def fix(self) -> None:
        self.static.publish(TFMessage(transforms=[edge("wrist", "tcp", self.get_clock().now().to_msg())]))


@pytest.fixture(scope="module")
def nodes(checkpoint_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tf")
    (folder / "arm.yaml").write_text(FILE)
    with NodeProcesses([policy_node(checkpoint_path, arm=str(folder / "arm.yaml"), autostart=True)], folder) as nodes:
        yield nodes
        nodes.check()


def test_the_arm_runs_on_tf_and_holds_without_it(client: Client, nodes):
    client.hand = None  # nothing on ee_pose
    client.wait_until_active()
    assert client.count_subscribers("ee_pose") == 0
    driver = Driver("driver")
    client.spinner.add_node(driver)
    client.sensors.reset()
    client.instruct("wave")
    client.wait_for_state(PolicyStatus.HOLDING, "ee_pose: no transform from /arm_base to tcp: nothing is known of tcp")
    driver.fix()
    client.wait_for_state(PolicyStatus.RUNNING)
    run(client)
    driver.frames["wrist"] = "elbow"
    client.wait_for_state(PolicyStatus.HOLDING, "ee_pose: no transform from /arm_base to tcp: they are not connected")
    driver.frames["wrist"] = "shoulder"
    client.wait_for_state(PolicyStatus.RUNNING)
    del driver.frames["wrist"]  # the shoulder and the wheel still move
    client.wait_for_state(PolicyStatus.HOLDING, "ee_pose")
    assert "silent" in client.status.reason or " old" in client.status.reason, client.status.reason
    driver.frames["wrist"] = "shoulder"
    client.wait_for_state(PolicyStatus.RUNNING)
    other = Driver("other")  # another arm whose frames have the same names
    client.spinner.add_node(other)
    client.wait_for_state(PolicyStatus.HOLDING, "is published by more than one of /driver, /other; stop the others")
    client.spinner.remove_node(other)
    other.destroy_node()
    client.wait_for_state(PolicyStatus.RUNNING)
    client.spinner.remove_node(driver)
    driver.destroy_node()


def test_without_tf2_msgs_the_frame_is_rejected_with_what_to_do(monkeypatch):
    monkeypatch.setattr(hand_frames, "TFMessage", None)
    with pytest.raises(UserError, match="ee_frame is 'tcp', but tf2_msgs is not installed; install .*, or leave"):
        HandFrames(Frames("base", "tcp"), print, print)
