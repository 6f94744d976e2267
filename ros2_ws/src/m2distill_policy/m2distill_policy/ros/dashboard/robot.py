"""What policy and recorder publish, as the page shows it, and the orders to them."""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.client import Client
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger

from m2distill_interfaces.msg import PolicyAction, PolicyStatus
from m2distill_interfaces.srv import Command
from m2distill_policy.errors import UserError
from m2distill_policy.ros.clients.client_node import RESEND_S
from m2distill_policy.ros.clients.instruct import ANSWER_TIMEOUT_S, STATES
from m2distill_policy.ros.common.conversions import LATCHED
from m2distill_policy.ros.dashboard.cameras import TYPES, Polled, take

TRIGGER_LIMIT_S = 15.0
RELOAD_LIMIT_S = 120.0  # of a swap of checkpoints, which may load a language model
OLD_S = 3.0  # after which a node that publishes diagnostics at 1 Hz counts as silent
COMMANDS = {"instruct": "INSTRUCT", "start": "START", "pause": "PAUSE"}
TRIGGERS = {
    "reset_fault": "policy/reset_fault",
    "reload": "policy/reload",
    "rollback": "policy/rollback",
    "record": "recorder/start",
    "keep": "recorder/keep",
    "discard": "recorder/discard",
    "success": "recorder/success",
    "failure": "recorder/failure",
}
MOVING = ("instruct", "start")  # orders after which the arm may move
MOVING_STATES = ("running", "holding")
ORDERS = (*COMMANDS, *TRIGGERS, "label")


class Robot:
    """Subscriber of a policy's and a recorder's topics, and client of their services.

    Callbacks run on the node's thread, orders in the server's loop, and `section` on any.

    Args:
        node: Node of the dashboard.
        is_stopping: Function that returns whether a stop is in progress, during which no order may start motion.
    """

    def __init__(self, node: Node, is_stopping: Callable[[], bool]):
        self._node, self._is_stopping = node, is_stopping
        self.stops = 0  # number of stops so far: an order of before is not sent again
        self._status: PolicyStatus | None = None
        self._diagnostics: dict[str, tuple[DiagnosticStatus, float]] = {}  # by node, with the time of arrival
        self._action: tuple[PolicyAction, float] | None = None
        self._names = {name: node.resolve_topic_name(name) for name in ("policy", "recorder")}
        node.create_subscription(PolicyStatus, "policy/status", self._on_status, LATCHED)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._actions = node.create_subscription(
            PolicyAction, "policy/action", lambda _: None, 1, callback_group=Polled()
        )
        self._command = node.create_client(Command, "policy/command")
        self._triggers = {name: node.create_client(Trigger, service) for name, service in TRIGGERS.items()}
        self._instruction_pub = node.create_publisher(String, "instruction", 10)
        self._label_pub = node.create_publisher(String, "recorder/command", 10)

    # --- what the nodes publish

    def _on_status(self, status: PolicyStatus) -> None:
        self._status = status

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            for kind, name in self._names.items():
                if status.name == f"{name}: {kind}":
                    self._diagnostics[kind] = status, time.monotonic()

    def image_topics(self) -> dict[str, str]:
        """Return the policy's image topics with their types, however remapped; without a policy those of the graph."""
        node = self._node
        listed: list[tuple[str, list[str]]] = []
        namespace, _, name = self._names["policy"].rpartition("/")
        if node.count_publishers("policy/status"):
            try:
                listed = node.get_subscriber_names_and_types_by_node(name, namespace or "/")
            except Exception:  # rclpy: the node has left the graph since
                listed = []
        found = _images(listed)
        if found:
            return found
        inside = f"{node.get_namespace().rstrip('/')}/"
        topics = [(t, kinds) for t, kinds in node.get_topic_names_and_types() if t.startswith(inside)]
        named = _images((t, kinds) for t, kinds in topics if "/image_raw" in t)
        raw = {topic for topic in named if not topic.endswith("/compressed")}
        return {t: kind for t, kind in named.items() if t in raw or t.removesuffix("/compressed") not in raw}

    def policy(self) -> dict[str, Any]:
        """Return the state of the policy."""
        status, present = self._status, self._node.count_publishers("policy/status")
        if status is None or not present:
            return {"state": "", "name": self._names["policy"]}
        return {
            "state": STATES[status.state],
            "name": self._names["policy"],
            "reason": status.reason,
            "instruction": status.instruction,
            "known": list(status.known_instructions),
            "checkpoint": status.checkpoint_id,
            "previous": status.previous_checkpoint_id,
            "notice": status.notice,
            "others": present - 1,
        }

    def action(self) -> dict[str, Any] | None:
        """Return the newest sample of the policy while it is young."""
        if taken := take(self._actions):
            self._action = taken[0], time.monotonic()
        if self._action is None or time.monotonic() - self._action[1] > OLD_S:
            return None
        action = self._action[0]
        return {
            "mode": action.mode,
            "weights": [round(float(weight), 2) for weight in action.weights],
            "entropy": round(action.entropy, 2),
            "limited_by": list(action.limited_by),
        }

    def diagnostics(self, kind: str) -> dict[str, Any] | None:
        """Return the newest diagnostics of `policy` or `recorder`; None if there never were any."""
        if kind not in self._diagnostics:
            return None
        status, received_s = self._diagnostics[kind]
        age_s = time.monotonic() - received_s
        return {
            "level": ord(status.level),
            "text": status.message,
            "silent_s": round(age_s) if age_s > OLD_S else 0,
            "values": {value.key: value.value for value in status.values},
        }

    # --- orders

    async def order(self, name: str, text: str) -> str:
        """Send an order and return the answer of the node. Raises UserError."""
        if name in MOVING and self._is_stopping():
            raise UserError("a stop is in progress; repeat the order after it")
        if name in COMMANDS:
            return await self._send_command(name, text)
        if name in TRIGGERS:
            limit_s = RELOAD_LIMIT_S if name in ("reload", "rollback") else TRIGGER_LIMIT_S
            answer = await self.answer(self._triggers[name], Trigger.Request(), limit_s)
            if not answer.success:
                raise UserError(answer.message)
            return answer.message or "done"
        return self._label(text)

    async def _send_command(self, name: str, text: str) -> str:
        expires = Time(sec=int(time.time() + ANSWER_TIMEOUT_S)) if name in MOVING else Time()
        request = Command.Request(
            command=getattr(Command.Request, COMMANDS[name]),
            instruction=text if name == "instruct" else "",
            request_id=uuid.uuid4().hex,
            expires=expires,
        )
        answer = await self.answer(self._command, request, ANSWER_TIMEOUT_S, RESEND_S, moves=name in MOVING)
        if not answer.accepted:
            raise UserError(f"{answer.message} ({STATES[answer.state]})")
        if name == "instruct":
            # recorders subscribe to the topic; for the policy this is a repetition, which changes nothing
            self._instruction_pub.publish(String(data=text))
        return answer.message or "done"

    async def answer(
        self, client: Client, request: Any, limit_s: float, resend_s: float | None = None, moves: bool = False
    ) -> Any:
        """Return the response of a service; the request is sent again every `resend_s`. Raises UserError."""
        count = self._node.count_services(client.srv_name)
        if count != 1:
            problem = f"{count} nodes offer it; stop all but one" if count else "no node offers it; start the node"
            raise UserError(f"{client.srv_name}: {problem}")
        loop, stops = asyncio.get_running_loop(), self.stops
        answered: asyncio.Future = loop.create_future()

        def set_result(response: Any) -> None:
            if not answered.done():
                answered.set_result(response)

        def deliver(future) -> None:
            loop.call_soon_threadsafe(set_result, future.result())

        until_s = time.monotonic() + limit_s
        while (left_s := until_s - time.monotonic()) > 0:
            if moves and stops != self.stops:
                raise UserError("cancelled by a stop")
            sent = client.call_async(request)
            sent.add_done_callback(deliver)
            try:
                return await asyncio.wait_for(asyncio.shield(answered), min(left_s, resend_s or left_s))
            except asyncio.TimeoutError:
                client.remove_pending_request(sent)
        raise UserError(f"no answer of {client.srv_name} within {limit_s:.0f} s, the order may not have arrived")

    def _label(self, text: str) -> str:
        if not text.strip():
            raise UserError("the label is empty; write the instruction that the episodes show")
        if not self._label_pub.get_subscription_count():
            raise UserError("no recorder receives the label; start one with m2distill run --record FOLDER")
        self._label_pub.publish(String(data=f"instruction {' '.join(text.split())}"))
        return f"label sent: {' '.join(text.split())}"


def _images(listed) -> dict[str, str]:
    return {topic: kind for topic, kinds in listed for kind in kinds if kind in TYPES}
