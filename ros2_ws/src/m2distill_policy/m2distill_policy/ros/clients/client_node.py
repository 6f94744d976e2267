"""Base class of the ROS clients: a node that sends requests to others and waits for their results."""

import time
import uuid
from collections.abc import Callable

import rclpy
from builtin_interfaces.msg import Time
from rclpy.client import Client
from rclpy.node import Node
from std_srvs.srv import Trigger

from m2distill_interfaces.srv import Command
from m2distill_policy.errors import UserError

LIMIT_S = 120.0  # default time limit of a wait
RESEND_S = 1.0  # after which a command that was not answered is sent again


class ClientNode(Node):
    """Node that spins itself while it waits."""

    def __init__(self, name: str, namespace: str = ""):
        super().__init__(name, namespace=namespace, enable_rosout=False)
        self.created_s = time.monotonic()

    def wait_until(self, condition: Callable[[], object], limit_s: float) -> bool:
        """Spin until `condition()` is true or the time limit is reached; return whether it became true."""
        deadline_s = time.monotonic() + limit_s
        while not (done := condition()) and time.monotonic() <= deadline_s:
            rclpy.spin_once(self, timeout_sec=0.05)
        return bool(done)

    def wait(self, condition: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
        """Spin until `condition()` is true. Raises UserError, which names `what`, at the time limit."""
        if not self.wait_until(condition, limit_s):
            raise UserError(f"waited {limit_s:.0f} s for {what}; see the nodes' logs")

    def run(self, seconds: float) -> None:
        """Spin for some time."""
        self.wait_until(lambda: False, seconds)

    def call_trigger(self, client: Client) -> Trigger.Response:
        """Call a Trigger service and return its response."""
        future = client.call_async(Trigger.Request())
        self.wait(future.done, f"the response of {client.srv_name}")
        return future.result()

    def one_server(self, service: str) -> None:
        """Raise UserError if several nodes offer the service, because only one of them would answer."""
        count = self.count_services(self.resolve_service_name(service))
        if count > 1:
            raise UserError(
                f"{count} nodes offer {service}, so the answer of one says nothing of the others; "  # words: ok
                "stop all but one, or give each robot a namespace"
            )


class CommandClient:
    """Client of a policy's ~/command. It sends a command until the policy has answered this very request.

    Args:
        node: Node that spins itself.
        service: Name of the service.
    """

    def __init__(self, node: ClientNode, service: str = "policy/command"):
        self._node, self.service = node, service
        self.client = node.create_client(Command, service)

    def is_ready(self) -> bool:
        return self.client.service_is_ready()

    def send(self, command: int, text: str = "", limit_s: float = LIMIT_S) -> Command.Response:
        """Return the policy's answer to a command. Raises UserError if there is none within the time limit."""
        started_s, until_s = time.monotonic(), int(time.time() + limit_s)
        stop = command in (Command.Request.STOP, Command.Request.PAUSE)
        request = Command.Request(
            command=command,
            instruction=text,
            request_id=uuid.uuid4().hex,
            expires=Time() if stop else Time(sec=until_s),
        )
        sent: list = []

        def answered() -> bool:
            if time.monotonic() - started_s >= RESEND_S * len(sent):
                sent.append(self.client.call_async(request))
            return any(future.done() for future in sent)

        if not self._node.wait_until(answered, limit_s):
            raise UserError(f"no answer of {self.service} within {limit_s:.0f} s, the command may not have arrived")
        return next(future.result() for future in sent if future.done())
