"""Shared code of the tests with ROS 2: node descriptions and a client.

The client publishes the robot's sensors, receives all topics of the policy and calls its services. It waits for events,
with a time limit.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float64, String
from std_srvs.srv import Trigger

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_interfaces.msg import PolicyAction, PolicyStatus
from m2distill_interfaces.srv import Command
from m2distill_policy.bringup.processes import NodeDescription
from m2distill_policy.ros.common import conversions
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS

KNOWN = ("pick up the alphabet soup and place it in the basket", "wave")  # instructions of the tiny checkpoint
CAMERAS = ("agentview", "wrist")
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
LIMIT_S = 30.0
ASK_AGAIN_S = 5.0
STOP_MS = 150  # maximum duration of a stop
TRIALS = 3
WIDE_LIMITS = """
max_age_s: 1.0
watchdog_s: 1.0
command_timeout_s: 1.0
joint_margin_rad: -10.0
workspace_min_m: [-.inf, -.inf, -.inf]
workspace_max_m: [.inf, .inf, .inf]
"""  # lines of an arm file: any pose and joint, and the pauses of a busy machine
START_LIMIT_S = 90.0  # of a node's process on a busy machine: it imports torch


def policy_node(checkpoint: Path, **parameters) -> NodeDescription:
    parameters = {"checkpoint": str(checkpoint), "arm": "libero_sim", "min_similarity": 1.0, **parameters}
    return NodeDescription("m2distill_policy", "policy_node", "policy", "", parameters)


class Client(Node):
    def __init__(self, namespace: str = "", spinner: SingleThreadedExecutor | None = None):
        super().__init__("test_client", namespace=namespace, enable_rosout=False)
        self.spinner = spinner or SingleThreadedExecutor()
        self.spinner.add_node(self)
        self.received: list[tuple[str, object]] = []  # topic, message, in order of arrival
        for topic, kind, qos in (
            ("twist_cmd", TwistStamped, 100),
            ("gripper_cmd", Float64, 100),
            ("policy/action", PolicyAction, 100),
            ("policy/status", PolicyStatus, LATCHED),
            ("/diagnostics", DiagnosticArray, 10),
        ):
            self.create_subscription(kind, topic, lambda m, topic=topic: self.received.append((topic, m)), qos)
        self.image_pubs = {name: self.create_publisher(Image, f"{name}/image_raw", 1) for name in CAMERAS}
        self.joints_pub = self.create_publisher(JointState, "joint_states", 5)
        self.pose_pub = self.create_publisher(PoseStamped, "ee_pose", 5)
        self.success_pub = self.create_publisher(Bool, "sim/success", 10)
        self.instruction_pub = self.create_publisher(String, "instruction", 10)
        self.lifecycle_clients: dict[tuple[type, str], object] = {}
        self.change_state = self.lifecycle_client(ChangeState, "policy")
        self.get_state = self.lifecycle_client(GetState, "policy")
        self.policy_parameters = AsyncParameterClient(self, "policy")
        # created early, because a node cannot respond to a client before it has discovered it
        self.triggers = {
            name: self.create_client(Trigger, f"policy/{name}")
            for name in ("start", "stop", "pause", "reset_fault", "reload", "rollback")
        }
        self.command = self.create_client(Command, "policy/command")
        self.execute = ActionClient(self, ExecuteInstruction, "policy/execute")
        self.sent = 0  # sets of sensor data
        self.sizes = dict.fromkeys(CAMERAS, 64)  # of the images; 0: the camera is off
        self.encoding = "rgb8"
        self.positions = np.array([0.0, -0.5, 0.1, -2.0, 0.2, 1.5, 0.8, 0.04, 0.04])  # None: the driver is off
        self.hand = [0.4, 0.0, 0.3]  # its position; None: unknown
        self.frame_id = "panda_link0"  # of its pose
        self.stamp_offset_ns = 0  # of all sensors against the clock
        self.sent_ns: dict[str, int] = {}  # when each input was sent last, by the clock
        self.sensors = self.create_timer(0.05, self.sense)
        self.sensors.cancel()

    def leave_sensors_to_the_simulator(self) -> None:
        """Destroy the publishers of sensor data, because an input with two publishers holds the arm."""
        for publisher in (*self.sensor_pubs, self.pose_pub):
            self.destroy_publisher(publisher)
        self.image_pubs, self.joints_pub = {}, None

    def is_the_only_one(self) -> bool:
        """Return whether no other client publishes sensor data; a simulator may."""
        return all(
            sum(info.node_name == self.get_name() for info in self.get_publishers_info_by_topic(pub.topic_name)) == 1
            for pub in self.sensor_pubs
        )

    @property
    def sensor_pubs(self) -> list:
        return [*self.image_pubs.values(), *([self.joints_pub] if self.joints_pub else [])]

    def sense(self, stamp_ns: int | None = None) -> None:
        """Publish one set of sensor data, stamped now by default. The timer `sensors` does so at 20 Hz."""
        clock_ns = self.get_clock().now().nanoseconds
        now_ns = clock_ns + self.stamp_offset_ns if stamp_ns is None else stamp_ns
        if self.hand is not None:
            pose = PoseStamped()
            pose.header.stamp, pose.header.frame_id = conversions.stamp_from_ns(now_ns), self.frame_id
            pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = self.hand
            pose.pose.orientation.x, pose.pose.orientation.w = 1.0, 0.0
            self.pose_pub.publish(pose)
            self.sent_ns["ee_pose"] = clock_ns
        if self.positions is not None:
            names = [*PANDA_JOINTS, *PANDA_FINGERS]
            self.joints_pub.publish(conversions.joint_state_from_numpy(names, self.positions, now_ns))
            self.sent_ns["joint_states"] = clock_ns
        for name, size in self.sizes.items():
            if size:
                pixels = np.full((size, size, 3), self.sent % 256, np.uint8)
                image = conversions.image_from_numpy(pixels, now_ns, name)
                image.encoding = self.encoding
                self.image_pubs[name].publish(image)
                self.sent_ns[name] = clock_ns
        self.sent += 1

    def wait(self, happened: Callable[[], object], what: str, limit_s: float = LIMIT_S):
        """Spin until `happened()` is true and return what it returned."""
        deadline_s = time.monotonic() + limit_s
        while not (result := happened()):
            assert time.monotonic() < deadline_s, f"waited {limit_s} s for {what}; status {self.status}"
            self.spinner.spin_once(timeout_sec=0.05)
        return result

    def result(self, future, what: str):
        self.wait(future.done, what)
        return future.result()

    def transition(self, transition: int, node: str = "policy") -> bool:
        """Ask for a transition; return whether the state changed, also if the answer was lost."""
        before, request = self.state(node), ChangeState.Request(transition=Transition(id=transition))
        changer = self.lifecycle_client(ChangeState, node)
        self.wait(changer.service_is_ready, f"{node}'s transitions", START_LIMIT_S)

        def unheard() -> ChangeState.Response | None:
            return ChangeState.Response(success=True) if self.state(node) != before else None

        what = f"transition {transition}"
        return self.answer_of(lambda: changer.call_async(request), what, unheard, START_LIMIT_S).success

    def state(self, node: str = "policy") -> str:
        return self.ask(self.lifecycle_client(GetState, node), GetState.Request(), "the state").current_state.label

    def lifecycle_client(self, kind: type, node: str):
        """Return the client of a lifecycle service, created once."""
        if (kind, node) not in self.lifecycle_clients:
            name = {ChangeState: "change_state", GetState: "get_state"}[kind]
            self.lifecycle_clients[kind, node] = self.create_client(kind, f"{node}/{name}")
        return self.lifecycle_clients[kind, node]

    def ask(self, client, request, what: str):
        """Return the response of a service, see `answer_of`."""
        self.wait(client.service_is_ready, what, START_LIMIT_S)
        return self.answer_of(lambda: client.call_async(request), what)

    def begin_episode(self, start) -> bool:
        """Call a recorder's `start`; True if an episode is open, also if the answer to an earlier call was lost."""
        answer = self.ask(start, Trigger.Request(), "the start")
        return answer.success or "is being recorded" in answer.message

    def answer_of(self, send: Callable[[], object], what: str, unheard=lambda: None, limit_s: float = LIMIT_S):
        """Return the result of a request, or what `unheard` returns of one that took effect without an answer.

        The request is repeated, because one that is sent before both sides have discovered each other is lost.
        """
        asked, begun_s = [], time.monotonic()

        def answer():
            done = next((future.result() for future in asked if future.done()), None)
            if done is None and time.monotonic() - begun_s >= ASK_AGAIN_S * len(asked):
                if asked and (done := unheard()) is not None:
                    return done
                asked.append(send())
            return done

        return self.wait(answer, what, limit_s)

    def change_parameters(self, parameters: AsyncParameterClient, changes: list[Parameter]):
        """Set parameters of a node and return the response."""
        self.wait(parameters.services_are_ready, "the parameter services", START_LIMIT_S)
        return self.answer_of(lambda: parameters.set_parameters(changes), "a parameter")

    def start(self) -> None:
        """Configure where necessary, activate, and start the sensors."""
        if self.state() == State(label="unconfigured").label:
            assert self.transition(Transition.TRANSITION_CONFIGURE)
        assert self.transition(Transition.TRANSITION_ACTIVATE)
        self.wait_until_active()
        self.sensors.reset()

    def wait_until_active(self) -> None:
        """Wait until an active node publishes its status and has subscribed to all topics of this client."""
        publishers = (self.instruction_pub, *self.sensor_pubs)
        self.wait(
            lambda: (
                self.status
                and self.command.service_is_ready()
                and all(pub.get_subscription_count() for pub in publishers)
            ),
            "an active node",
            START_LIMIT_S,
        )

    def set_parameter(self, name: str, value) -> None:
        assert (rejection := self.rejection(name, value)) == "", rejection

    def rejection(self, name: str, value) -> str:
        """Set a parameter; why it was rejected, or nothing."""
        answer = self.change_parameters(self.policy_parameters, [Parameter(name, value=value)])
        return "" if answer.results[0].successful else answer.results[0].reason

    def call(self, service: str) -> Trigger.Response:
        return self.ask(self.triggers[service], Trigger.Request(), service)

    def instruct(self, instruction: str) -> None:
        """Send a request to follow an instruction, also one that was stopped; empty: stop."""
        self.command_to("INSTRUCT" if instruction else "STOP", instruction)

    def command_to(self, verb: str, instruction: str = "", **fields):
        """Send a request to ~/command; return the future of its answer."""
        number = getattr(Command.Request, verb)
        return self.command.call_async(Command.Request(command=number, instruction=instruction, **fields))

    def publish_instruction(self, instruction: str) -> None:
        """Publish an instruction on the topic, where a repetition starts nothing."""
        self.instruction_pub.publish(String(data=instruction))

    def of(self, topic: str) -> list:
        return [message for name, message in self.received if name == topic]

    @property
    def status(self) -> PolicyStatus | None:
        return next(iter(reversed(self.of("policy/status"))), None)

    def wait_for_state(self, state: int, reason: str = "") -> PolicyStatus:
        """Wait until ~/status has this state and `reason` in its reason; return it."""
        return self.wait(
            lambda: (
                self.status if self.status and self.status.state == state and reason in self.status.reason else None
            ),
            f"state {state} because of {reason!r}",
        )

    def wait_for_motion(self, moving: bool) -> None:
        """Wait until the last twist is zero, or not zero. Messages on two topics may overtake each other."""

        def speed() -> float:
            return math.hypot(*np.concatenate(conversions.twist_to_numpy(self.of("twist_cmd")[-1])))

        self.wait(lambda: self.of("twist_cmd") and (speed() > 0) == moving, f"a twist, moving: {moving}")


def run(robot: Client) -> None:
    robot.instruct(KNOWN[0])
    robot.wait_for_state(PolicyStatus.RUNNING)
    moved = len(robot.of("policy/action"))
    robot.wait(lambda: len(robot.of("policy/action")) >= moved + 3, "the arm to move")


def stopped(robot: Client, since_ns: int) -> int | None:
    """Return the stamp of the first zero twist after `since_ns`, or None."""
    return next(
        (
            conversions.stamp_to_ns(t.header.stamp)
            for t in robot.of("twist_cmd")
            if conversions.stamp_to_ns(t.header.stamp) > since_ns and not np.any(conversions.twist_to_numpy(t))
        ),
        None,
    )


def diagnosed(robot: Client, reason: str) -> bool:
    return any(reason in array.status[0].message for array in robot.of("/diagnostics"))


def assert_stops(robot: Client, reason: str, break_it: Callable[[], int], repair: Callable[[], None]) -> None:
    """Assert that the arm stops within STOP_MS after a fault.

    `break_it` causes the fault and returns its time: the stamp of the last valid input, or of the first invalid one. It
    is tried up to three times, because a busy machine may delay the zero command.
    """
    times_ms = []
    for _ in range(TRIALS):
        run(robot)
        robot.received.clear()
        since_ns = break_it()
        times_ms.append((robot.wait(lambda s=since_ns: stopped(robot, s), "the zero command") - since_ns) / 1e6)
        robot.wait(lambda: diagnosed(robot, reason), f"diagnostics with {reason!r}")
        commands = len(robot.of("policy/action"))
        sent = robot.sent
        robot.wait(lambda n=sent: robot.sent > n + 3, "more sensor data")
        assert len(robot.of("policy/action")) == commands, "the policy continued"
        repair()
        if times_ms[-1] <= STOP_MS:
            return
    raise AssertionError(f"stopped after {times_ms} ms, limit {STOP_MS} ms")


def ask(simulator: Client, stamp_ns: int, image: int) -> PolicyAction:
    """Send one set, all images of this brightness, and return the answer."""
    simulator.sent = image
    simulator.sense(stamp_ns)

    def stamped(received: list) -> list:
        return [message for message in received if conversions.stamp_to_ns(message.header.stamp) == stamp_ns]

    simulator.wait(lambda: stamped(moving(simulator)), "the answer")
    return simulator.wait(lambda: stamped(simulator.of("policy/action")), "the action")[0]


def moving(simulator: Client) -> list:
    """Return the twists that are commands; those of a hold are zero."""
    return [t for t in simulator.of("twist_cmd") if t.twist.linear.x != 0]
