"""An arm that takes poses, or six numbers, is led by the joystick: from where its hand is, within its limits."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from harness import Client
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool
from teleop_arms import ARM, listen
from tf2_msgs.msg import TFMessage

from m2distill_policy.observations.poses import Pose, difference
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.nodes.teleop_node import TeleopNode

FREE, HELD = [0] * 6, [0, 0, 0, 0, 1, 0]
FORWARD, STILL, TURNING = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 6, [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
STEP_M, STEP_RAD = 0.1 / 20, 0.5 / 20  # full deflection for one period
LEAD_M = 0.25 / 20  # limits of an arm that nobody has described
POSES = f"{ARM}output: pose\n"


class Operator:
    """A joystick at 20 Hz, and an arm that follows each target unless it is blocked."""

    def __init__(self, client: Client):
        self.client, self.stick, self.follows = client, (STILL, FREE), True
        self.active: list[bool] = []
        self.joy = client.create_publisher(Joy, "joy", 1)
        client.create_subscription(Bool, "operator_active", lambda m: self.active.append(m.data), 10)
        client.create_timer(0.05, self.act)

    def act(self) -> None:
        if self.stick is not None:
            self.joy.publish(Joy(axes=self.stick[0], buttons=self.stick[1]))

    def poses(self) -> list[Pose]:
        return [conversions.pose_to_numpy(message) for message in self.client.of("target_pose")]

    def follow(self, message) -> None:
        if self.follows:
            self.client.hand = conversions.pose_to_numpy(message).position_m.tolist()

    def lead(self, stick: list[float], count: int) -> list[Pose]:
        """Hold the deadman with this stick until so many targets have arrived."""
        self.client.received.clear()
        self.stick = (stick, HELD)
        self.client.wait(lambda: len(self.poses()) >= count, "targets")
        return self.poses()

    def release(self) -> Pose:
        """Release the deadman and return the last target."""
        self.stick = (STILL, FREE)
        self.client.wait(lambda: self.active and not self.active[-1], "the release")
        self.client.wait(lambda: not self.settle(), "nothing more")
        return self.poses()[-1]

    def settle(self) -> bool:
        """Return whether messages arrive within a few periods."""
        before = len(self.poses())
        for _ in range(8):
            self.client.spinner.spin_once(timeout_sec=0.05)
        return len(self.poses()) > before


@pytest.fixture
def operator(client) -> Operator:
    listen(client, "pose")
    listen(client, "array")
    return Operator(client)


@pytest.fixture
def make_teleop(client, operator, make_node, monkeypatch, tmp_path) -> Iterator[Callable[[str], Node]]:
    """Function that starts the node in this process for an arm file with these lines, and the arm's sensors."""
    init, made = Node.__init__, []

    def make(lines: str) -> Node:
        (tmp_path / "arm.yaml").write_text(lines)
        overrides = [
            Parameter("arm", value=str(tmp_path / "arm.yaml")),
            Parameter("joy_timeout_s", value=1.0),
            Parameter("joy_max_age_s", value=5.0),
        ]
        with monkeypatch.context() as patch:
            patch.setattr(Node, "__init__", lambda self, name: init(self, name, parameter_overrides=overrides))
            made.append(make_node(TeleopNode))
        client.spinner.add_node(made[0])
        client.wait(operator.joy.get_subscription_count, "the teleop node")
        if "pose" in lines:
            client.create_subscription(conversions.PoseStamped, "target_pose", operator.follow, 100)
            client.sensors.reset()
            client.wait(lambda: client.sent > 5, "sensors")
        return made[0]

    yield make
    for node in made:
        client.spinner.remove_node(node)


def test_a_takeover_begins_at_the_hand_and_the_target_moves_at_the_stick_s_speed(operator, make_teleop):
    make_teleop(POSES)
    start = np.array(operator.client.hand)
    poses = operator.lead(FORWARD, 10)
    assert operator.active[0] and poses[0].position_m - start == pytest.approx([STEP_M, 0, 0])
    steps = np.diff([pose.position_m for pose in poses], axis=0)
    assert steps == pytest.approx(np.tile([STEP_M, 0, 0], (len(steps), 1)))
    assert {message.header.frame_id for message in operator.client.of("target_pose")} == {"panda_link0"}
    turning = operator.lead(TURNING, 5)  # the hand of this arm never turns
    assert difference(poses[-1], turning[-1])[3:].argmax() == 2
    turns = [difference(a, b)[5] for a, b in pairwise(turning)]
    assert max(turns) <= STEP_RAD + 1e-9
    assert operator.client.count_publishers("twist_cmd") == 0


def test_a_blocked_arm_is_pushed_no_further_than_a_policy_pushes_it_and_a_wall_ends_the_motion(operator, make_teleop):
    make_teleop(f"{POSES}workspace_max_m: [0.41, 0.8, 1.2]\n")
    operator.follows = False
    client, start = operator.client, np.array(operator.client.hand)
    low = operator.lead([1.0, 0.0, 0.0, 0.0, 0.0, 0.0], 20)[-1]
    assert low.position_m - start == pytest.approx([0, LEAD_M, 0])
    assert operator.release().position_m == pytest.approx(start)  # the hand is there still
    operator.follows = True
    assert operator.lead(FORWARD, 10)[-1].position_m[0] == pytest.approx(0.41)
    assert client.hand[0] == pytest.approx(0.41)


@pytest.mark.parametrize("silent", [False, True])
def test_a_release_and_a_silent_joystick_hold_the_hand_at_one_pose(operator, make_teleop, silent):
    make_teleop(POSES)
    operator.lead(FORWARD, 5)
    operator.follows = False
    if silent:
        operator.stick = None
        operator.client.wait(lambda: not operator.active[-1], "the release", 10.0)
    held = operator.release()
    hand = np.array(operator.client.hand)
    assert held.position_m == pytest.approx(hand) and operator.active.count(False) == 1
    operator.client.hand = np.subtract(hand, [0.0, 0.0, 0.01]).tolist()  # it sinks, and nothing follows it
    assert not operator.settle()


def test_without_a_fresh_pose_the_arm_is_held_and_continues_from_where_it_is_then(operator, make_teleop):
    make_teleop(f"{POSES}max_age_s: 0.5\n".replace("max_age_s: 1.0\n", ""))
    operator.lead(FORWARD, 5)
    operator.follows = False
    client = operator.client
    sent = client.sent
    client.wait(lambda: client.sent > sent + 2, "the hand's last pose to be published")
    hand, client.hand = np.array(client.hand), None  # its driver is silent
    client.wait(lambda: operator.poses()[-1].position_m == pytest.approx(hand), "the last pose as target")
    assert not operator.settle() and operator.active[-1]
    client.hand = np.add(hand, [0.0, 0.1, 0.0]).tolist()  # a person has moved it
    poses = operator.lead(FORWARD, 2)
    assert poses[0].position_m - client.hand == pytest.approx([STEP_M, 0, 0])
    client.frame_id = "camera"
    client.wait(lambda: operator.poses()[-1].position_m == pytest.approx(client.hand), "the last pose again")


def test_the_hand_may_be_known_by_tf(operator, make_teleop):
    client = operator.client
    client.hand = None
    frames = client.create_publisher(TFMessage, "tf", 100)

    def publish() -> None:
        edge = TransformStamped(child_frame_id="tcp")
        edge.header.frame_id, edge.header.stamp = "panda_link0", client.get_clock().now().to_msg()
        edge.transform.translation.x, edge.transform.rotation.x, edge.transform.rotation.w = 0.3, 1.0, 0.0
        frames.publish(TFMessage(transforms=[edge]))

    client.create_timer(0.02, publish)
    make_teleop(f"{POSES}ee_frame: tcp\n")
    client.wait(frames.get_subscription_count, "its subscription")
    operator.follows = False
    poses = operator.lead(FORWARD, 3)
    assert poses[0].position_m == pytest.approx([0.3 + STEP_M, 0, 0])
    assert operator.release().position_m == pytest.approx([0.3, 0, 0])


def test_two_sources_of_the_pose_hold_the_arm(operator, make_teleop):
    node = make_teleop(POSES)
    other = operator.client.create_publisher(conversions.PoseStamped, "ee_pose", 5)
    operator.client.wait(lambda: node._motion.check() or node._motion._why_hold(), "the conflict")
    assert node._motion._why_hold().startswith("/ee_pose has 2 publishers, allowed is one")
    operator.stick = (FORWARD, HELD)
    operator.client.wait(lambda: operator.active and operator.active[-1], "the operator")
    assert not operator.settle()
    operator.client.destroy_publisher(other)


def test_an_arm_of_six_numbers_is_moved_within_its_speed_limits(operator, make_teleop):
    make_teleop(f"{ARM}output: array\nmax_linear_m_s: 0.1\n")
    client, diagonal = operator.client, [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    operator.stick = (diagonal, HELD)
    client.wait(lambda: len(client.of("velocity_cmd")) > 3, "motion")
    assert client.of("velocity_cmd")[-1].data[:3] == pytest.approx([0.1 / np.sqrt(3)] * 3)
    operator.stick = (diagonal, FREE)
    client.wait(lambda: not any(client.of("velocity_cmd")[-1].data), "the zero velocity")
    client.wait(lambda: not operator.active[-1], "the release")
    assert client.count_publishers("twist_cmd") == 0
