"""Base class of the ROS clients: a node that sends requests to others and waits for their results."""

import time
from collections.abc import Callable

import rclpy
from rclpy.client import Client
from rclpy.node import Node
from std_srvs.srv import Trigger

from m2distill_policy.errors import UserError

LIMIT_S = 120.0  # default time limit of a wait


class ClientNode(Node):
    """Node that spins itself while it waits."""

    def __init__(self, name: str, namespace: str = ""):
        super().__init__(name, namespace=namespace, enable_rosout=False)

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
