"""Command topics, and the threads beside the control loop, in this process."""

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
import rclpy.action
from geometry_msgs.msg import PoseStamped, TwistStamped
from harness import LIMIT_S
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.task import Future
from std_msgs.msg import Float64, Float64MultiArray

from m2distill_policy.action import ActionSample, Command
from m2distill_policy.control.session import PolicySession
from m2distill_policy.errors import UserError
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.common.background import BackgroundExecutor
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.nodes.policy_node import PolicyNode
from m2distill_policy.ros.policy import gripper
from m2distill_policy.ros.policy.outputs import Outputs
from m2distill_policy.ros.policy.watchdog import Watchdog
from m2distill_policy.safety.arm_presets import limits_of
from m2distill_policy.safety.output_parameters import OutputParameters
from m2distill_policy.spec import libero_spec

KINDS = {
    "twist_cmd": TwistStamped,
    "target_pose": PoseStamped,
    "velocity_cmd": Float64MultiArray,
    "gripper_cmd": Float64,
}
COMMAND = Command(
    np.array([0.2, 0.0, -0.1]),
    np.array([0.0, 0.0, 2.0]),
    0.03,
    123_000_000_000,
    ActionSample(np.zeros(7, np.float32), 0, 0.0, 0.0),
)


class Robot:
    """Subscriber of the topics of Outputs, in the same process."""

    def __init__(self, watchdog_s: float = 1.0, **settings):
        self.node = LifecycleNode("sender", enable_rosout=False)
        self.entities = ManagedEntities(self.node)
        limits = replace(limits_of("libero_sim"), watchdog_s=watchdog_s)
        self.session = PolicySession(libero_spec(8), policy=None, instructions={}, limits=limits, use_pose=True)
        self.outputs = Outputs(self.entities, OutputParameters(**settings), self.session, "base")
        self.node.trigger_configure()
        self.node.trigger_activate()
        self.received: list[tuple[str, object]] = []
        self.ear = rclpy.create_node("ear", enable_rosout=False)
        for topic, kind in KINDS.items():
            self.ear.create_subscription(kind, topic, lambda m, topic=topic: self.received.append((topic, m)), 10)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.ear)

    def after(self, send, count: int) -> list[tuple[str, object]]:
        """Return the first `count` messages that `send` causes."""
        deadline_s = time.monotonic() + LIMIT_S
        while not all(
            self.ear.count_publishers(p.topic_name) and p.get_subscription_count()
            for p in self.node.publishers
            if p.topic_name.strip("/") in KINDS
        ):
            assert time.monotonic() < deadline_s
            self.executor.spin_once(timeout_sec=0.01)
        self.received.clear()
        send()
        while len(self.received) < count:
            assert time.monotonic() < deadline_s, self.received
            self.executor.spin_once(timeout_sec=0.1)
        return self.received

    def has_pose(self, x: float) -> None:
        self.session.observe_pose((x, 0.1, 0.3), (1.0, 0.0, 0.0, 0.0), 0)
        self.outputs.pose_received()

    def topics(self) -> set[str]:
        return {p.topic_name.strip("/") for p in self.node.publishers} & set(KINDS)

    def close(self) -> None:
        self.entities.destroy()
        self.ear.destroy_node()
        self.node.destroy_node()


@pytest.fixture
def make_robot(ros) -> Iterator:
    entities = []

    def make(**settings) -> Robot:
        entities.append(Robot(**settings))
        return entities[-1]

    yield make
    for robot in entities:
        robot.close()


def test_servo_receives_a_twist_stamped_at_publication_and_a_zero_twist_to_stop(make_robot):
    robot = make_robot(command_stamp="sending")
    before_ns = robot.node.get_clock().now().nanoseconds
    heard = dict(robot.after(lambda: robot.outputs.send(COMMAND), 2))
    twist = heard["twist_cmd"]
    assert before_ns <= conversions.stamp_to_ns(twist.header.stamp) <= robot.node.get_clock().now().nanoseconds
    assert twist.header.frame_id == "base" and heard["gripper_cmd"].data == 0.03
    np.testing.assert_allclose(np.concatenate(conversions.twist_to_numpy(twist)), [0.2, 0, -0.1, 0, 0, 2.0])
    ((topic, stop),) = robot.after(robot.outputs.stop, 1)
    assert topic == "twist_cmd" and not np.any(conversions.twist_to_numpy(stop))


def test_an_impedance_controller_receives_the_measured_pose_plus_one_step_and_to_stop_the_measured_pose(make_robot):
    robot = make_robot(output="pose")
    robot.outputs.stop()  # no pose is known: nothing to send, and nothing was
    robot.has_pose(0.4)
    heard = dict(robot.after(lambda: robot.outputs.send(COMMAND), 2))
    target = heard["target_pose"]
    assert conversions.stamp_to_ns(target.header.stamp) == COMMAND.stamp_ns and target.header.frame_id == "base"
    p, q = target.pose.position, target.pose.orientation
    np.testing.assert_allclose([p.x, p.y, p.z], [0.41, 0.1, 0.295])  # 1/20 s of the velocity
    np.testing.assert_allclose([q.x, q.y, q.z, q.w], [np.cos(0.05), np.sin(0.05), 0, 0], atol=1e-12)
    robot.has_pose(0.405)
    ((topic, stop),) = robot.after(robot.outputs.stop, 1)
    assert topic == "target_pose" and stop.pose.position.x == 0.405 and stop.pose.orientation.x == 1.0


def test_an_invalid_or_old_pose_is_not_a_target_and_the_last_valid_one_stops_the_arm(make_robot):
    robot = make_robot(output="pose", watchdog_s=0.3)

    def moves_and_poses_fail() -> None:
        robot.has_pose(0.4)
        robot.outputs.send(COMMAND)
        robot.has_pose(math.nan)
        robot.session.reset()
        time.sleep(0.4)
        robot.outputs.stop()
        robot.outputs.stop()  # its pose is unknown by now, and the controller has its target
        robot.has_pose(0.39)
        robot.outputs.stop()  # it has sunk a little
        time.sleep(0.4)
        robot.outputs.stop()
        robot.has_pose(9.0)
        robot.outputs.stop()  # it was moved while its pose was unknown
        robot.has_pose(8.0)
        robot.outputs.stop()

    def stands_and_poses_fail() -> None:
        robot.outputs.unlatch()  # others may move it from now on
        robot.has_pose(0.4)
        robot.has_pose(math.nan)
        robot.outputs.stop()
        time.sleep(0.4)
        robot.outputs.unlatch()
        robot.outputs.stop()
        robot.has_pose(9.0)
        robot.outputs.stop()

    def places(send, count: int) -> list[float]:
        return [m.pose.position.x for topic, m in robot.after(send, count) if topic == "target_pose"]

    assert places(moves_and_poses_fail, 6) == [pytest.approx(0.41), 0.4, 0.4, 9.0, 9.0]  # and one for the gripper
    assert places(stands_and_poses_fail, 2) == [0.4, 9.0]


def test_a_forward_controller_receives_six_numbers_and_zeros_to_stop(make_robot):
    robot = make_robot(output="array")
    heard = dict(robot.after(lambda: robot.outputs.send(COMMAND), 2))
    assert list(heard["velocity_cmd"].data) == [0.2, 0.0, -0.1, 0.0, 0.0, 2.0]
    ((_, stop),) = robot.after(robot.outputs.stop, 1)
    assert list(stop.data) == [0.0] * 6


def test_a_dry_run_has_no_command_topic(make_robot):
    robot = make_robot(dry_run=True)
    assert robot.topics() == set()
    robot.outputs.send(COMMAND)
    robot.outputs.stop()
    robot.outputs.flush()
    assert robot.outputs.last is COMMAND
    assert make_robot().topics() == {"twist_cmd", "gripper_cmd"}


def test_the_gripper_action_requires_control_msgs_with_a_message(make_robot):
    if gripper.GripperCommand is not None:
        pytest.skip("control_msgs is installed")
    for output in ("action", "parallel_action"):
        with pytest.raises(UserError, match=f"{output}, but control_msgs is not installed .* install ros-.*, or set"):
            make_robot(gripper_output=output)


@pytest.mark.parametrize("kind", ["action", "parallel_action"])
def test_a_gripper_action_receives_few_goals_and_none_for_commands_that_alternate(make_robot, kind):
    action = gripper.ParallelGripperCommand if kind == "parallel_action" else gripper.GripperCommand
    if action is None:
        pytest.skip("control_msgs is not installed")
    from rclpy.action import ActionServer

    robot = make_robot(gripper_output=kind, gripper_action_scale=0.5, gripper_action_offset=0.001, gripper_joint="jaw")
    goals = []

    def execute(handle):
        goal = handle.request.command
        if kind == "parallel_action":
            goals.append((*goal.name, *goal.position, *goal.effort))
        else:
            goals.append(("jaw", goal.position, goal.max_effort))
        handle.succeed()
        return action.Result()

    server = ActionServer(robot.ear, action, "gripper_action", execute)
    robot.executor.add_node(robot.node)
    deadline_s = time.monotonic() + LIMIT_S
    while not robot.outputs._gripper._client.server_is_ready():
        assert time.monotonic() < deadline_s
        robot.executor.spin_once(timeout_sec=0.02)
    for widths_m, wanted in (
        ([0.08] * 40, [("jaw", 0.041, 20.0)]),
        ([0.0, 0.0, 0.08, 0.08] * 15, [("jaw", 0.041, 20.0)]),
        ([0.0] * 40, [("jaw", 0.041, 20.0), ("jaw", 0.001, 20.0)]),
    ):
        for width_m in widths_m:
            robot.outputs._gripper.send(width_m)
            until_s = time.monotonic() + 0.02
            while time.monotonic() < until_s:
                robot.executor.spin_once(timeout_sec=0.005)
        assert goals == wanted
    server.destroy()


class GripperServer:
    """Stand-in for the client of a gripper's action server, because control_msgs may not be installed."""

    def __init__(self):
        self.ready, self.accepts, self.goals = True, True, []

    def server_is_ready(self) -> bool:
        return self.ready

    def send_goal_async(self, goal) -> Future:
        self.goals.append(goal.command.position)
        answer = Future()
        answer.set_result(SimpleNamespace(accepted=self.accepts))
        return answer

    def destroy(self) -> None: ...


def test_a_gripper_goal_is_sent_again_if_it_may_not_have_been_reached(make_robot, monkeypatch):
    server = GripperServer()
    monkeypatch.setattr(
        gripper, "GripperCommand", SimpleNamespace(Goal=lambda: SimpleNamespace(command=SimpleNamespace()))
    )
    monkeypatch.setattr(rclpy.action, "ActionClient", lambda *_: server)
    outputs = make_robot(gripper_output="action", output="pose", gripper_dwell_s=0.0).outputs

    def goals_after(happens=lambda: None) -> list[float]:
        """Return the goals of three equal commands after an event."""
        server.goals.clear()
        happens()
        for _ in range(3):
            outputs._gripper.send(COMMAND.gripper_width_m)
        return server.goals

    width_m = COMMAND.gripper_width_m
    assert goals_after() == [width_m] and goals_after() == []
    assert goals_after(outputs.stop) == [width_m]  # a hold: an operator may have moved the gripper since
    assert goals_after(outputs.clear) == [width_m]  # another activation
    server.accepts = False
    assert goals_after(outputs.stop) == [width_m] * 3
    server.accepts = True
    assert goals_after() == [width_m] and goals_after() == []
    server.ready = False
    assert goals_after() == []
    server.ready = True
    assert goals_after() == [width_m]


def test_the_watchdog_trips_once_when_it_is_not_fed_and_never_while_it_rests():
    tripped = threading.Event()
    watchdog = Watchdog(0.05, tripped.set)
    watchdog.feed()
    watchdog.rest()
    assert not tripped.wait(0.15)  # asleep
    fed_s = time.monotonic()
    watchdog.feed()
    assert tripped.wait(LIMIT_S)
    assert time.monotonic() - fed_s >= 0.05
    tripped.clear()
    assert not tripped.wait(0.15) and watchdog.trips == 1
    watchdog.feed()
    assert tripped.wait(LIMIT_S)
    watchdog.end()
    assert watchdog.trips == 2 and not any(t.name == "watchdog" for t in threading.enumerate())


def test_background_results_are_delivered_on_the_callers_thread():
    background, outcomes, finished = BackgroundExecutor(), [], threading.Event()

    def work() -> int:
        finished.set()
        return 7

    def fail() -> None:
        raise ValueError("no")

    background.run(work, lambda result, error: outcomes.append((threading.current_thread(), result, error)))
    assert finished.wait(LIMIT_S) and outcomes == []
    background.run(fail, lambda result, error: outcomes.append((threading.current_thread(), result, str(error))))
    deadline_s = time.monotonic() + LIMIT_S
    while len(outcomes) < 2:
        assert time.monotonic() < deadline_s
        background.poll()
    assert sorted(outcomes, key=lambda o: str(o[1])) == [
        (threading.current_thread(), 7, None),
        (threading.current_thread(), None, "no"),
    ]
    background.end()


def test_an_error_in_a_transition_leaves_no_thread_and_no_publisher(ros, checkpoint_path, monkeypatch):
    node = PolicyNode()
    node.set_parameters([Parameter("checkpoint", value=str(checkpoint_path))])
    node.trigger_configure()
    node.trigger_activate()
    assert any(t.name == "watchdog" for t in threading.enumerate())

    def fail() -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(node._entities, "stop_timers", fail)
    node.trigger_deactivate()
    assert not any(t.name == "watchdog" for t in threading.enumerate())
    assert not {p.topic_name.strip("/") for p in node.publishers} & set(KINDS)
    node.close()
    node.destroy_node()


def test_a_hold_in_poses_is_one_latched_pose_while_the_arm_sinks(make_robot):
    robot = make_robot(output="pose")
    robot.has_pose(0.4)
    robot.after(lambda: robot.outputs.send(COMMAND), 2)
    stops = []
    for sunk in range(5):
        robot.has_pose(0.4 - 0.01 * sunk)
        ((_, stop),) = robot.after(robot.outputs.stop, 1)
        stops.append(stop.pose.position.x)
    assert stops == [0.4] * 5
    robot.outputs.unlatch()  # an operator has moved the arm
    ((_, stop),) = robot.after(robot.outputs.stop, 1)
    assert stop.pose.position.x == pytest.approx(0.36)
