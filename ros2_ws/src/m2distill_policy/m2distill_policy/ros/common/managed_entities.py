"""What the policy node makes when it is configured, to be destroyed when it is cleaned up."""

import contextlib
import inspect
from collections.abc import Callable

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from std_srvs.srv import Trigger


class ManagedEntities:
    """Makes things on a node and remembers how to undo it, last first."""

    def __init__(self, node: LifecycleNode):
        self.node = node
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)  # goes on when the simulation's clock stands still
        self.subscriptions: list[tuple[Subscription, bool]] = []  # and whether nothing works without
        self._timers: list[Timer] = []
        self._undo = contextlib.ExitStack()

    def publisher(self, kind: type, topic: str, qos: QoSProfile | int) -> LifecyclePublisher:
        made = self.node.create_lifecycle_publisher(kind, topic, qos)
        self._undo.callback(self.node.destroy_lifecycle_publisher, made)
        return made

    def subscription(
        self, kind: type, topic: str, callback: Callable, qos: QoSProfile | int, needed: bool = False
    ) -> None:
        made = self.node.create_subscription(kind, topic, callback, qos)
        self._undo.callback(self.node.destroy_subscription, made)
        self.subscriptions.append((made, needed))

    def service(self, name: str, callback: Callable) -> None:
        """A coroutine may take its time: in a group of its own it keeps nobody else waiting."""
        group = ReentrantCallbackGroup() if inspect.iscoroutinefunction(callback) else None
        made = self.node.create_service(Trigger, name, callback, callback_group=group)
        self._undo.callback(self.node.destroy_service, made)

    def timer(self, period_s: float, callback: Callable[[], None], always: bool = False) -> None:
        """A timer of the steady clock. Unless `always`, it stands still until `start_timers`."""
        made = self.node.create_timer(period_s, callback, clock=self.steady, autostart=always)
        self._undo.callback(self.node.destroy_timer, made)
        if not always:
            self._timers.append(made)

    def start_timers(self) -> None:
        for timer in self._timers:
            timer.reset()

    def stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def at_destruction(self, callback: Callable[[], object]) -> None:
        self._undo.callback(callback)

    def destroy(self) -> None:
        self._timers.clear()
        self.subscriptions.clear()
        self._undo.close()
