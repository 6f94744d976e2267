"""A node that asks others and waits for what they do: what `tell`, `call` and the clients of benchmarks share."""

import time
from collections.abc import Callable

import rclpy
from rclpy.client import Client
from rclpy.node import Node
from std_srvs.srv import Trigger

from m2distill_policy.errors import UserError

LIMIT_S = 120.0  # for anything that is waited for


class ClientNode(Node):
    def __init__(self, name: str, namespace: str = ""):
        super().__init__(name, namespace=namespace, enable_rosout=False)

    def wait_until(self, happened: Callable[[], object], limit_s: float) -> bool:
        """Whether it happens in that time; returns when it does."""
        deadline_s = time.monotonic() + limit_s
        while not (done := happened()) and time.monotonic() <= deadline_s:
            rclpy.spin_once(self, timeout_sec=0.05)
        return bool(done)

    def wait(self, happened: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
        """Raises UserError when it does not happen."""
        if not self.wait_until(happened, limit_s):
            raise UserError(f"waited {limit_s:.0f} s for {what}; the nodes' logs say why")

    def run(self, seconds: float) -> None:
        self.wait_until(lambda: False, seconds)

    def ask(self, client: Client) -> Trigger.Response:
        future = client.call_async(Trigger.Request())
        self.wait(future.done, f"the answer of {client.srv_name}")
        return future.result()
