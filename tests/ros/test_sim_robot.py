"""The simulator has what a real robot has: calibration, velocities, TF, a URDF, a pose; `arm:=unknown` runs on it."""

import dataclasses
import xml.etree.ElementTree as ET
from collections import defaultdict

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from harness import KNOWN, LATCHED, START_LIMIT_S, Client, policy_node
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.launch_config import SimLaunchConfig
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.bringup.system import sim_nodes
from m2distill_policy.observations.frame_tree import FrameTree
from m2distill_policy.ros.common.conversions import stamp_to_ns
from m2distill_policy.ros.policy.hand_frames import STATIC
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS
from m2distill_sim.kinematics import BASE, TCP

TOPICS = {
    "joint_states": JointState,
    "ee_pose": PoseStamped,
    "tf": TFMessage,
    "agentview/camera_info": CameraInfo,
    "agentview/image_raw": Image,
    "wrist/camera_info": CameraInfo,
}


class Robot:
    """What the simulator publishes, by topic and stamp."""

    def __init__(self, client: Client):
        client.leave_sensors_to_the_simulator()
        self.client = client
        self.messages: dict[str, dict[int, object]] = defaultdict(dict)
        for topic, kind in TOPICS.items():
            client.create_subscription(kind, topic, lambda m, topic=topic: self._add(topic, m), QoSProfile(depth=50))
        self.fixed, self.urdfs = [], []
        client.create_subscription(TFMessage, "tf_static", self.fixed.append, STATIC)
        client.create_subscription(String, "robot_description", lambda m: self.urdfs.append(m.data), LATCHED)

    def _add(self, topic: str, message) -> None:
        header = message.transforms[0].header if topic == "tf" else message.header
        self.messages[topic][stamp_to_ns(header.stamp)] = message

    def complete(self) -> list[int]:
        """Return the stamps of observations of which everything was received."""
        return sorted(set.intersection(*(set(self.messages[topic]) for topic in TOPICS)))

    def tree(self, stamp_ns: int) -> FrameTree:
        tree = FrameTree()
        for message, moving in ((self.fixed[-1], False), (self.messages["tf"][stamp_ns], True)):
            for edge in message.transforms:
                t, r = edge.transform.translation, edge.transform.rotation
                place = (t.x, t.y, t.z), (r.x, r.y, r.z, r.w)
                tree.update(edge.child_frame_id, edge.header.frame_id, *place, stamp_ns if moving else None)
        return tree


@pytest.fixture(scope="module")
def nodes(checkpoint_path, tmp_path_factory):
    """The simulator in lockstep, and a policy for an arm of which only the workspace is known."""
    log = tmp_path_factory.mktemp("log")
    (sim,) = sim_nodes(SimLaunchConfig(assets="builtin", image_size_px=64, initial_state=41, pacing="lockstep"))
    sim = dataclasses.replace(sim, parameters=sim.parameters | {"repeat_period_s": 0.1})
    policy = policy_node(checkpoint_path, arm="unknown", pacing="lockstep", use_sim_time=True, autostart=True)
    with NodeProcesses([sim, policy], log) as nodes:
        yield nodes
        nodes.check()


def test_an_unknown_arm_is_rehearsed_by_topic_and_by_tf(client, nodes):
    robot = Robot(client)
    client.wait(lambda: robot.complete() and robot.fixed and robot.urdfs, "the simulator", START_LIMIT_S)
    client.wait_until_active()
    client.instruct(KNOWN[0])
    client.wait_for_state(PolicyStatus.RUNNING)
    client.wait(lambda: len(robot.complete()) >= 20, "observations of everything")
    check_observations(robot)
    drive_by_tf(client, robot)


def check_observations(robot: Robot) -> None:
    stamps, messages = robot.complete(), robot.messages
    places = []
    for stamp_ns in stamps:
        pose, joints = messages["ee_pose"][stamp_ns], messages["joint_states"][stamp_ns]
        found = robot.tree(stamp_ns).find(TCP, BASE)
        p, q = pose.pose.position, pose.pose.orientation
        places.append([p.x, p.y, p.z])
        np.testing.assert_allclose(found.pose.position_m, places[-1], atol=1e-9)
        assert abs(found.pose.quat_xyzw @ [q.x, q.y, q.z, q.w]) == pytest.approx(1, abs=1e-9)
        assert pose.header.frame_id == BASE and found.stamp_ns == stamp_ns
        assert list(joints.name) == [*PANDA_JOINTS, *PANDA_FINGERS] and len(joints.velocity) == 9
    assert 0.2 < places[0][0] < 0.7 and 0.02 < places[0][2] < 0.7  # in front of the arm, above its base
    assert np.ptp(places, axis=0).max() > 0.0005
    first, last = (np.array(messages["joint_states"][stamp].position) for stamp in (stamps[-2], stamps[-1]))
    if stamps[-1] - stamps[-2] == 50_000_000:
        np.testing.assert_allclose(messages["joint_states"][stamps[-1]].velocity, (last - first) / 0.05, atol=0.2)
    info, image = (messages[f"agentview/{name}"][stamps[-1]] for name in ("camera_info", "image_raw"))
    assert (info.height, info.width, info.header) == (image.height, image.width, image.header)
    assert info.k[0] == info.k[4] > 0 and (info.k[2], info.k[5]) == (31.5, 31.5)
    frames = {edge.child_frame_id: edge.header.frame_id for edge in robot.fixed[-1].transforms}
    assert frames[image.header.frame_id] == BASE and frames["wrist_optical_frame"] == "panda_hand"
    links = {link.get("name") for link in ET.fromstring(robot.urdfs[-1]).findall("link")}
    moving = {edge.child_frame_id for edge in messages["tf"][stamps[-1]].transforms}
    assert links == {BASE} | moving | ({*frames} - {BASE, "agentview_optical_frame", "wrist_optical_frame"})


def drive_by_tf(client: Client, robot: Robot) -> None:
    """Configure the policy again with the hand's pose from TF, and with a workspace that ends beside the hand."""
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        assert client.transition(transition)
    stamp_ns = robot.complete()[-1]
    place = robot.messages["ee_pose"][stamp_ns].pose.position
    client.set_parameter("ee_frame", TCP)
    client.set_parameter("workspace_min_m", [place.x - 0.0002, place.y - 0.0002, place.z - 0.0002])
    client.set_parameter("workspace_max_m", [place.x + 0.0002, place.y + 0.0002, place.z + 0.0002])
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert client.transition(transition)
    assert client.count_subscribers("ee_pose") == 1  # this test's
    client.received.clear()
    client.instruct(KNOWN[0])
    client.wait_for_state(PolicyStatus.RUNNING)
    client.wait(lambda: len(client.of("policy/action")) >= 25, "actions")
    assert any("workspace" in action.limited_by for action in client.of("policy/action"))
    after = [pose.pose.position for stamp, pose in robot.messages["ee_pose"].items() if stamp > stamp_ns]
    moved = np.array([[p.x - place.x, p.y - place.y, p.z - place.z] for p in after])
    assert len(moved) >= 20 and np.abs(moved).max() < 0.01  # OSC_POSE does not stop at once
