"""Random requests on every interface, over real DDS, and no motion without a live order.

M2DISTILL_RANDOM_PEER_S=3600 for an hour, M2DISTILL_RANDOM_PEER_SEED for another sequence.

The order book is independent of the node's own table. An order is live from the moment it is sent until the node
rejects it, ends it, or acknowledges a stop, a pause or a deactivation that was requested after the order was answered.
Stamps of commands, answers and states are of one clock, so a command with motion that is stamped later than the end of
the last live order is a fault. Two requests that are under way at once may arrive in either order.
"""

import math
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from builtin_interfaces.msg import Duration
from harness import KNOWN, Client, policy_node
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.parameter import Parameter
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_interfaces.msg import PolicyStatus
from m2distill_interfaces.srv import Command
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.ros.common.conversions import stamp_to_ns, twist_to_numpy

SECONDS = float(os.environ.get("M2DISTILL_RANDOM_PEER_S", "15"))
SEED = int(os.environ.get("M2DISTILL_RANDOM_PEER_SEED", "0"))
KILL_EVERY_S = 120.0  # a node that was killed is forgotten after half a minute, and the next one waits for that
TOPIC_NS = 1_000_000_000  # until an instruction on the topic has arrived, on a busy machine
MARGIN_NS = 50_000_000  # from the stamp of a status to the last command of the tick that caused it
TEXTS = (*KNOWN, *KNOWN, "", "make coffee", "do not wave", "x" * 3000, "\x00", "\u202ewave")
VALUES = (0.0, -1.0, math.nan, math.inf, 1e30, 3, True, "x", "", [1.0], ["a"], "/nowhere")
PARAMETERS = (
    "speed_limit",
    "sampling",
    "min_similarity",
    "torch_threads",
    "seed",
    "operator_timeout_s",
    "success_topic",
    "checkpoint",
    "arm",
    "nothing",
)
LIFECYCLE = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
    99,
)


class OrderBook:
    """Orders that may be live, by when they were answered, and since when there has been none."""

    def __init__(self, now_ns: Callable[[], int]):
        self._now_ns = now_ns
        self._live: dict[int, int | None] = {}  # order -> when it was accepted; None: not answered yet
        self._count = 0
        self.none_since_ns: int | None = now_ns()
        self.why = "nothing was ordered yet"

    def sent(self, answered_by_ns: int | None = None) -> int:
        """Note an order and return its number. `answered_by_ns` is for orders that get no answer."""
        self._count += 1
        self._live[self._count] = answered_by_ns
        self.none_since_ns = None
        return self._count

    def accepted(self, order: int) -> None:
        """Note that the node has answered an order."""
        if order in self._live:
            self._live[order] = self._now_ns()

    def ended(self, order: int, why: str) -> None:
        """Note that an order was rejected or has ended."""
        if self._live.pop(order, None) is not None:
            self._close(why)

    def stopped(self, requested_ns: int, why: str) -> None:
        """Note the acknowledgement of a request that ends all orders accepted before it."""
        self._live = {order: at_ns for order, at_ns in self._live.items() if at_ns is None or at_ns >= requested_ns}
        self._close(why)

    def _close(self, why: str) -> None:
        if not self._live and self.none_since_ns is None:
            self.none_since_ns, self.why = self._now_ns(), why


class RandomPeer:
    """Random requests to a policy node, and the check of its commands."""

    def __init__(self, robot: Client, rng: random.Random):
        self.robot, self.rng = robot, rng
        self.book = OrderBook(lambda: robot.get_clock().now().nanoseconds)
        self.operator_pub = robot.create_publisher(Bool, "operator_active", 10)
        self.holds_deadman = False
        self.goals: list = []
        self.log: list[str] = []
        self.commands = self.moved = 0

    def step(self) -> None:
        """Do one random thing."""
        name = self.rng.choices(list(ACTIONS), [weight for weight, _ in ACTIONS.values()])[0]
        self.log.append(f"{self.robot.get_clock().now().nanoseconds} {name}")
        ACTIONS[name][1](self)

    def check(self) -> None:
        """Look at what the node has sent since the last check."""
        received, self.robot.received = self.robot.received, self.robot.received[-1:]
        statuses = [m for name, m in received if name == "policy/status"]
        held_since_ns = next(
            (stamp_to_ns(m.stamp) for m in statuses[-1:] if m.state == PolicyStatus.OPERATOR and self.holds_deadman),
            None,
        )
        if statuses:
            self.robot.received = [("policy/status", statuses[-1]), *self.robot.received]
        for twist in (m for name, m in received if name == "twist_cmd"):
            self.commands += 1
            speed = np.concatenate(twist_to_numpy(twist))
            assert np.isfinite(speed).all(), f"{speed} was commanded"
            if not speed.any():
                continue
            self.moved += 1
            stamp_ns, none_ns = stamp_to_ns(twist.header.stamp), self.book.none_since_ns
            late = none_ns is not None and stamp_ns > none_ns + MARGIN_NS
            assert not late, self.report(f"motion {(stamp_ns - none_ns) / 1e6:.0f} ms after: {self.book.why}")
            taken = held_since_ns is not None and stamp_ns > held_since_ns + MARGIN_NS
            assert not taken, self.report("motion while an operator has the arm")

    def report(self, what: str) -> str:
        status = self.robot.status
        recent = "\n".join(self.log[-40:])
        return f"{what}; state {status and (status.state, status.reason)}; the last requests:\n{recent}"

    def _answered(self, order: int, accepted: bool, name: str) -> None:
        if accepted:
            self.book.accepted(order)
        else:
            self.book.ended(order, f"{name} was rejected")

    # --- what a random peer does

    def command(self) -> None:
        verb = self.rng.choice(("INSTRUCT", "INSTRUCT", "INSTRUCT", "START", "STOP", "PAUSE"))
        now_ns = self.robot.get_clock().now().nanoseconds
        order = self.book.sent() if verb in ("INSTRUCT", "START") else None
        future = self.robot.command_to(verb, self.rng.choice(TEXTS))

        def answered(done) -> None:
            answer = done.result()
            self.log.append(f"  {verb}: {answer.accepted}, {answer.message[:60]}")
            if order is not None:
                self._answered(order, answer.accepted, verb)
            if order is None and answer.accepted:
                self.book.stopped(now_ns, f"{verb} was acknowledged")

        future.add_done_callback(answered)

    def useful_order(self) -> None:
        """An order in a state that permits motion; otherwise nothing would ever move."""
        repair(self.robot)
        self.holds_deadman = False
        self.operator_pub.publish(Bool(data=False))
        if self.robot.triggers["reset_fault"].service_is_ready():
            self.robot.triggers["reset_fault"].call_async(Trigger.Request())
        if self.robot.change_state.service_is_ready():
            for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
                self.robot.change_state.call_async(ChangeState.Request(transition=Transition(id=number)))
        order = self.book.sent()

        def answered(done) -> None:
            self._answered(order, done.result().accepted, "INSTRUCT")

        self.robot.command_to("INSTRUCT", KNOWN[0]).add_done_callback(answered)

    def unknown_command(self) -> None:
        self.robot.command.call_async(Command.Request(command=self.rng.choice((0, 5, 255)), instruction=KNOWN[0]))

    def topic(self) -> None:
        self.book.sent(answered_by_ns=self.robot.get_clock().now().nanoseconds + TOPIC_NS)
        self.robot.publish_instruction(self.rng.choice(TEXTS))

    def trigger(self) -> None:
        name = self.rng.choice(list(self.robot.triggers))
        now_ns = self.robot.get_clock().now().nanoseconds
        order = self.book.sent() if name == "start" else None

        def answered(done) -> None:
            answer = done.result()
            self.log.append(f"  {name}: {answer.success}, {answer.message[:60]}")
            if order is not None:
                self._answered(order, answer.success, "start")
            if name in ("stop", "pause") and answer.success:
                self.book.stopped(now_ns, f"{name} was acknowledged")

        if self.robot.triggers[name].service_is_ready():
            self.robot.triggers[name].call_async(Trigger.Request()).add_done_callback(answered)

    def goal(self) -> None:
        order = self.book.sent()
        limit_s = self.rng.choice((0.0, 0.3, 1.0, 3.0))
        limit = Duration(sec=int(limit_s), nanosec=int(limit_s % 1 * 1e9))
        if self.rng.random() < 0.1:
            limit = Duration(sec=-5)
        text = self.rng.choice(TEXTS)

        def answered(done) -> None:
            goal = done.result()
            self._answered(order, goal.accepted, "the goal")
            if not goal.accepted:
                return
            self.goals.append(goal)
            goal.get_result_async().add_done_callback(lambda _: self.book.ended(order, "the goal has ended"))

        self.robot.execute.send_goal_async(
            ExecuteInstruction.Goal(instruction=text, time_limit=limit)
        ).add_done_callback(answered)

    def cancel(self) -> None:
        if self.goals:
            self.rng.choice(self.goals).cancel_goal_async()

    def parameter(self) -> None:
        changes = [Parameter(self.rng.choice(PARAMETERS), value=self.rng.choice(VALUES))]
        if self.robot.policy_parameters.services_are_ready():
            self.robot.policy_parameters.set_parameters(changes)

    def lifecycle(self) -> None:
        number = self.rng.choice(LIFECYCLE)
        now_ns = self.robot.get_clock().now().nanoseconds

        def answered(done) -> None:
            self.log.append(f"  transition {number}: {done.result().success}")
            if number == Transition.TRANSITION_DEACTIVATE and done.result().success:
                self.book.stopped(now_ns, "the node was deactivated")

        if self.robot.change_state.service_is_ready():
            request = ChangeState.Request(transition=Transition(id=number))
            self.robot.change_state.call_async(request).add_done_callback(answered)

    def operator(self) -> None:
        self.holds_deadman = not self.holds_deadman
        self.operator_pub.publish(Bool(data=self.holds_deadman))

    def silent_operator(self) -> None:
        self.holds_deadman = False

    def sensors(self) -> None:
        robot = self.robot
        change = self.rng.choice(("joints", "camera", "pose", "future", "limit", "encoding"))
        repair(robot)
        if self.rng.random() < 0.6:
            return  # everything is in order again
        if change == "joints":
            robot.positions = None
        elif change == "camera":
            robot.sizes["wrist"] = self.rng.choice((0, 7, 64))
        elif change == "pose":
            robot.hand = self.rng.choice((None, [math.nan, 0.0, 0.3], [9.0, 0.0, 0.3]))
        elif change == "future":
            robot.stamp_offset_ns = self.rng.choice((-1, 1)) * 10**10
        elif change == "limit":
            robot.positions[0] = 2.9
        else:
            robot.encoding = self.rng.choice(("bgr8", "mono8", "nonsense"))


def repair(robot: Client) -> None:
    """Let the robot's sensors send what the policy can use."""
    robot.positions = np.array([0.0, -0.5, 0.1, -2.0, 0.2, 1.5, 0.8, 0.04, 0.04])
    robot.sizes = dict.fromkeys(robot.sizes, 64)
    robot.hand, robot.stamp_offset_ns, robot.encoding = [0.4, 0.0, 0.3], 0, "rgb8"


ACTIONS: dict[str, tuple[int, Callable[[RandomPeer], None]]] = {  # weight and method
    "useful order": (8, RandomPeer.useful_order),
    "command": (8, RandomPeer.command),
    "unknown command": (1, RandomPeer.unknown_command),
    "topic": (2, RandomPeer.topic),
    "trigger": (4, RandomPeer.trigger),
    "goal": (3, RandomPeer.goal),
    "cancel": (2, RandomPeer.cancel),
    "parameter": (2, RandomPeer.parameter),
    "lifecycle": (2, RandomPeer.lifecycle),
    "operator": (2, RandomPeer.operator),
    "silent operator": (1, RandomPeer.silent_operator),
    "sensors": (3, RandomPeer.sensors),
}


def test_a_random_peer_moves_nothing_without_a_live_order(client, checkpoint_path, tmp_path):
    description = policy_node(checkpoint_path, autostart=True, goal_start_timeout_s=1.0, operator_timeout_s=0.5)
    peer = RandomPeer(client, random.Random(SEED))
    until_s, kill_s, starts = time.monotonic() + SECONDS, time.monotonic() + KILL_EVERY_S, 0
    stack = ExitStack()

    def start() -> NodeProcesses:
        nonlocal starts
        starts += 1
        folder: Path = tmp_path / str(starts)
        return stack.enter_context(NodeProcesses([description], folder))

    with stack:
        nodes = start()
        client.wait_until_active()
        client.sensors.reset()
        while time.monotonic() < until_s:
            peer.step()
            pause_s = time.monotonic() + peer.rng.choice((0.0, 0.02, 0.1, 0.3, 0.6))
            while time.monotonic() <= pause_s:
                if peer.holds_deadman:
                    peer.operator_pub.publish(Bool(data=True))
                client.spinner.spin_once(timeout_sec=0.02)
                peer.check()
            nodes.check()  # it has not crashed
            if time.monotonic() > kill_s:
                requested_ns = client.get_clock().now().nanoseconds
                os.kill(nodes.pids["policy"], signal.SIGKILL)
                stack.pop_all().close()
                peer.book.stopped(requested_ns, "the node was killed")
                nodes, kill_s = start(), time.monotonic() + KILL_EVERY_S
        print(f"{len(peer.log)} requests and answers, {peer.commands} commands, {peer.moved} with motion")
        assert peer.moved > 10, "the peer never got the arm to move, so nothing was tested"
        _works(client, peer)
        nodes.check()


def _works(robot: Client, peer: RandomPeer) -> None:
    """After all this the node follows an instruction and stops."""
    peer.rng = random.Random(0)
    robot.positions, robot.sizes = (
        np.array([0.0, -0.5, 0.1, -2.0, 0.2, 1.5, 0.8, 0.04, 0.04]),
        dict.fromkeys(robot.sizes, 64),
    )
    robot.hand, robot.stamp_offset_ns, robot.encoding = [0.4, 0.0, 0.3], 0, "rgb8"
    peer.operator_pub.publish(Bool(data=False))
    if robot.state() == "unconfigured":
        assert robot.transition(Transition.TRANSITION_CONFIGURE)
    if robot.state() == "inactive":
        assert robot.transition(Transition.TRANSITION_ACTIVATE)
    robot.wait(lambda: robot.call("stop").success, "a stop")
    robot.call("reset_fault")
    robot.received.clear()
    robot.instruct(KNOWN[0])
    robot.wait_for_state(PolicyStatus.RUNNING)
    robot.wait_for_motion(True)
    assert robot.result(robot.command_to("STOP"), "the answer").accepted
    robot.wait_for_motion(False)
