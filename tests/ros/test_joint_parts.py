"""Joint states over real DDS: parts of several drivers, two drivers of one joint, and impossible jumps."""

from collections.abc import Iterator

import numpy as np
import pytest
from harness import TRIALS, Client, policy_node, run
from rclpy.node import Node
from sensor_msgs.msg import JointState

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.ros.common.conversions import joint_state_from_numpy, twist_to_numpy
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS


@pytest.fixture(scope="module")
def node(checkpoint_path, tmp_path_factory) -> Iterator[NodeProcesses]:
    description = policy_node(checkpoint_path, autostart=True, max_joint_speed_rad_s=7.0)
    with NodeProcesses([description], tmp_path_factory.mktemp("log")) as nodes:
        yield nodes
        nodes.check()


class Driver(Node):
    """Driver that publishes some joints at 50 Hz, as a node of its own."""

    def __init__(self, name: str, names: tuple[str, ...], positions: list[float]):
        super().__init__(name, enable_rosout=False)
        self.names, self.positions = names, positions
        self.pub = self.create_publisher(JointState, "joint_states", 5)
        self.timer = self.create_timer(0.02, self.publish)

    def publish(self) -> None:
        now_ns = self.get_clock().now().nanoseconds
        self.pub.publish(joint_state_from_numpy(list(self.names), np.array(self.positions), now_ns))


@pytest.fixture
def robot(client, node) -> Iterator[Client]:
    """Client whose joint states come from drivers that `client.add` starts and `client.remove` ends."""
    client.wait_until_active()
    client.positions, client.drivers = None, []

    def add(*arguments) -> Driver:
        driver = Driver(*arguments)
        client.drivers.append(driver)
        client.spinner.add_node(driver)
        return driver

    def remove(driver: Driver) -> None:
        client.spinner.remove_node(driver)
        client.drivers.remove(driver)
        driver.destroy_node()

    client.add, client.remove = add, remove
    client.destroy_publisher(client.joints_pub)
    client.joints_pub = None
    client.sensors.reset()
    yield client
    client.instruct("")
    client.wait_for_state(PolicyStatus.IDLE)
    for driver in list(client.drivers):
        remove(driver)


ARM, FINGERS = ("arm_driver", PANDA_JOINTS, [0.0, -0.5, 0.1, -2.0, 0.2, 1.5, 0.8]), [0.04, 0.04]


def assert_moves_without_a_hold(robot: Client, sets: int = 30) -> None:
    """Assert that no command is zero; tried up to three times, because a busy machine may delay a driver."""
    for _ in range(TRIALS):
        robot.wait_for_state(PolicyStatus.RUNNING)  # the start of a driver may have delayed the sensors of this process
        robot.received = [("policy/status", robot.status)]  # it is published on a change only
        sent = robot.sent
        robot.wait(lambda sent=sent: robot.sent > sent + sets, "sensor data")
        twists = robot.of("twist_cmd")
        if len(twists) > sets / 2 and all(np.any(twist_to_numpy(twist)) for twist in twists):
            return
    raise AssertionError(f"{len(twists)} commands, held because of {[s.reason for s in robot.of('policy/status')]}")


def test_arm_and_gripper_of_two_drivers_move_the_arm_and_each_must_stay_fresh(robot):
    robot.add(*ARM)
    robot.instruct("wave")
    robot.wait_for_state(PolicyStatus.HOLDING, "joint_states lacks ['panda_finger_joint1', 'panda_finger_joint2']")
    gripper = robot.add("gripper_driver", PANDA_FINGERS, FINGERS)
    robot.wait_for_state(PolicyStatus.RUNNING)
    assert_moves_without_a_hold(robot)
    robot.add("base_driver", ("wheel_left", "wheel_right"), [0.0, 0.0])  # of no interest to the policy
    assert_moves_without_a_hold(robot)
    robot.remove(gripper)
    robot.wait_for_state(PolicyStatus.HOLDING, "joint_states")
    robot.wait_for_motion(False)
    robot.add("gripper_driver", PANDA_FINGERS, FINGERS)  # it was restarted, and its messages are counted from 1 again
    robot.wait_for_state(PolicyStatus.RUNNING)
    assert_moves_without_a_hold(robot)


def test_partial_messages_beside_full_ones_do_not_interrupt(robot):
    driver = robot.add("driver", PANDA_JOINTS + PANDA_FINGERS, ARM[2] + FINGERS)
    run(robot)

    def publish_the_fingers() -> None:
        now_ns = driver.get_clock().now().nanoseconds
        driver.pub.publish(joint_state_from_numpy(list(PANDA_FINGERS), np.array(FINGERS), now_ns))

    driver.create_timer(0.01, publish_the_fingers)
    assert_moves_without_a_hold(robot)


def test_a_joint_of_two_drivers_holds_until_one_of_them_ends(robot):
    robot.add(*ARM)
    robot.add("gripper_driver", PANDA_FINGERS, FINGERS)
    run(robot)
    other = robot.add("other_driver", PANDA_FINGERS[:1], FINGERS[:1])
    robot.wait_for_state(
        PolicyStatus.HOLDING,
        "/joint_states: panda_finger_joint1 is published by more than one of /arm_driver, /gripper_driver, "
        "/other_driver; stop the others",
    )
    robot.wait_for_motion(False)
    robot.remove(other)
    robot.wait_for_state(PolicyStatus.RUNNING)
    assert_moves_without_a_hold(robot)


def test_an_impossible_jump_of_a_joint_holds_the_arm(robot):
    driver = robot.add("driver", PANDA_JOINTS + PANDA_FINGERS, ARM[2] + FINGERS)
    run(robot)
    driver.positions = [0.6, *driver.positions[1:]]
    robot.wait_for_state(PolicyStatus.HOLDING, "joint_states: panda_joint1 jumps, faster than 7 rad/s")
    robot.wait_for_motion(False)
    robot.wait_for_state(PolicyStatus.RUNNING)
