"""What the tests over ROS 2 share: node descriptions, and a client that plays the robot's sensors, hears all that the
policy says and calls its services. All waiting is for events, with a time limit."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_interfaces.msg import PolicyAction, PolicyStatus
from m2distill_policy.bringup import NodeDescription
from m2distill_policy.ros import messages
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS

KNOWN = ("pick up the alphabet soup and place it in the basket", "wave")  # instructions of the tiny checkpoint
CAMERAS = ("agentview", "wrist")
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
LIMIT_S = 30.0
ASK_AGAIN_S = 5.0
START_LIMIT_S = 90.0  # of a node's process on a busy machine: it imports torch


def policy_node(checkpoint: Path, **parameters) -> NodeDescription:
    parameters = {"checkpoint": str(checkpoint), "arm": "libero_sim", "min_similarity": 1.0, **parameters}
    return NodeDescription("m2distill_policy", "policy_node", "policy", "", parameters)


class Client(Node):
    def __init__(self):
        super().__init__("test_client", enable_rosout=False)
        self.spinner = SingleThreadedExecutor()
        self.spinner.add_node(self)
        self.heard: list[tuple[str, object]] = []  # topic, message, in order of arrival
        for topic, kind, qos in (("twist_cmd", TwistStamped, 100), ("gripper_cmd", Float64, 100),
                                 ("policy/action", PolicyAction, 100), ("policy/status", PolicyStatus, LATCHED),
                                 ("/diagnostics", DiagnosticArray, 10)):
            self.create_subscription(kind, topic, lambda m, topic=topic: self.heard.append((topic, m)), qos)
        self.image_pubs = {name: self.create_publisher(Image, f"{name}/image_raw", 1) for name in CAMERAS}
        self.joints_pub = self.create_publisher(JointState, "joint_states", 5)
        self.instruction_pub = self.create_publisher(String, "instruction", 10)
        self.change_state = self.create_client(ChangeState, "policy/change_state")
        self.get_state = self.create_client(GetState, "policy/get_state")
        self.policy_parameters = AsyncParameterClient(self, "policy")
        # made early: before the node knows of a client, it cannot answer it
        self.triggers = {name: self.create_client(Trigger, f"policy/{name}") for name in
                         ("start", "stop", "pause", "reset_fault", "reload", "rollback")}
        self.execute = ActionClient(self, ExecuteInstruction, "policy/execute")
        self.sent = 0  # sets of sensor data
        self.sizes = dict.fromkeys(CAMERAS, 64)  # of the pictures; 0: the camera is dead
        self.positions = np.linspace(-0.5, 0.5, 9)
        self.sensors = self.create_timer(0.05, self.sense)
        self.sensors.cancel()

    def sense(self, stamp_ns: int | None = None) -> None:
        """One set of sensor data, stamped now unless told otherwise. The timer `sensors` sends one at 20 Hz."""
        now_ns = self.get_clock().now().nanoseconds if stamp_ns is None else stamp_ns
        names = [*PANDA_JOINTS, *PANDA_FINGERS]
        self.joints_pub.publish(messages.joint_state_from_numpy(names, self.positions, now_ns))
        for name, size in self.sizes.items():
            if size:
                picture = np.full((size, size, 3), self.sent % 256, np.uint8)
                self.image_pubs[name].publish(messages.image_from_numpy(picture, now_ns, name))
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

    def transition(self, transition: int) -> bool:
        self.wait(self.change_state.service_is_ready, "the lifecycle services", START_LIMIT_S)
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.result(self.change_state.call_async(request), f"transition {transition}").success

    def state(self) -> str:
        self.wait(self.get_state.service_is_ready, "the lifecycle services", START_LIMIT_S)
        return self.result(self.get_state.call_async(GetState.Request()), "the state").current_state.label

    def start(self) -> None:
        """Configure where necessary, activate, and start the sensors."""
        if self.state() == State(label="unconfigured").label:
            assert self.transition(Transition.TRANSITION_CONFIGURE)
        assert self.transition(Transition.TRANSITION_ACTIVATE)
        self.wait_until_active()
        self.sensors.reset()

    def wait_until_active(self) -> None:
        """Until an active node tells its status and hears all that this client sends."""
        ears = (self.instruction_pub, self.joints_pub, *self.image_pubs.values())
        self.wait(lambda: self.status and all(pub.get_subscription_count() for pub in ears), "an active node",
                  START_LIMIT_S)

    def set_parameter(self, name: str, value) -> None:
        self.wait(self.policy_parameters.services_are_ready, "the parameter services", START_LIMIT_S)
        answer = self.result(self.policy_parameters.set_parameters([Parameter(name, value=value)]), "a parameter")
        assert answer.results[0].successful, answer.results[0].reason

    def call(self, service: str) -> Trigger.Response:
        """Asks again while no answer comes: on a busy machine one sent before both sides have met is lost."""
        self.wait(self.triggers[service].service_is_ready, service)
        asked, begun_s = [], time.monotonic()

        def answer() -> Trigger.Response | None:
            if time.monotonic() - begun_s >= ASK_AGAIN_S * len(asked):
                asked.append(self.triggers[service].call_async(Trigger.Request()))
            return next((future.result() for future in asked if future.done()), None)

        return self.wait(answer, service)

    def say(self, instruction: str) -> None:
        self.instruction_pub.publish(String(data=instruction))

    def of(self, topic: str) -> list:
        return [message for heard_on, message in self.heard if heard_on == topic]

    @property
    def status(self) -> PolicyStatus | None:
        return next(iter(reversed(self.of("policy/status"))), None)

    def wait_for_state(self, state: int, reason: str = "") -> PolicyStatus:
        """Until ~/status tells this state, with `reason` in its reason."""
        return self.wait(lambda: self.status if self.status and self.status.state == state
                         and reason in self.status.reason else None, f"state {state} because of {reason!r}")

    def wait_for_motion(self, moving: bool) -> None:
        """Until the last twist is, or is not, zero. Messages on two topics may overtake each other."""
        def speed() -> float:
            return math.hypot(*np.concatenate(messages.twist_to_numpy(self.of("twist_cmd")[-1])))
        self.wait(lambda: self.of("twist_cmd") and (speed() > 0) == moving, f"a twist, moving: {moving}")
