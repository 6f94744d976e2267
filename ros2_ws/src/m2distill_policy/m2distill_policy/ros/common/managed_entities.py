"""Publishers, subscriptions, services and timers of a lifecycle node, destroyed together when it is cleaned up."""

import contextlib
import inspect
from collections.abc import Callable

from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from std_srvs.srv import Trigger


class ManagedEntities:
    """Creates entities on a node and destroys them in reverse order."""

    def __init__(self, node: LifecycleNode):
        self.node = node
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)  # advances while the simulation clock is stopped
        self.subscriptions: list[tuple[Subscription, bool]] = []  # each with whether the node requires it
        self._timers: list[Timer] = []
        self._undo = contextlib.ExitStack()
        _answer_every_transition(node)

    def publisher(self, kind: type, topic: str, qos: QoSProfile | int) -> LifecyclePublisher:
        publisher = self.node.create_lifecycle_publisher(kind, topic, qos)
        self._undo.callback(self.node.destroy_lifecycle_publisher, publisher)
        return publisher

    def subscription(
        self, kind: type, topic: str, callback: Callable, qos: QoSProfile | int, needed: bool = False
    ) -> Subscription:
        subscription = self.node.create_subscription(kind, topic, callback, qos)
        self._undo.callback(self.node.destroy_subscription, subscription)
        self.subscriptions.append((subscription, needed))
        return subscription

    def service(self, name: str, callback: Callable, kind: type = Trigger) -> None:
        """Create a service. A coroutine gets a callback group of its own, so that it does not block others."""
        group = ReentrantCallbackGroup() if inspect.iscoroutinefunction(callback) else None
        service = self.node.create_service(kind, name, callback, callback_group=group)
        self._undo.callback(self.node.destroy_service, service)

    def timer(self, period_s: float, callback: Callable[[], None], always: bool = False) -> None:
        """Create a timer of the steady clock. Unless `always`, it is stopped until `start_timers`."""
        timer = self.node.create_timer(period_s, callback, clock=self.steady, autostart=always)
        self._undo.callback(self.node.destroy_timer, timer)
        if not always:
            self._timers.append(timer)

    def start_timers(self) -> None:
        for timer in self._timers:
            timer.reset()

    def stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def at_destruction(self, callback: Callable[[], object]) -> None:
        """Call `callback` in `destroy`, before all that was created earlier is destroyed."""
        self._undo.callback(callback)

    def destroy(self) -> None:
        self._timers.clear()
        self.subscriptions.clear()
        self._undo.close()


def _answer_every_transition(node: LifecycleNode) -> None:
    """Reject a transition that does not fit the state. rclpy raises instead, and its client waits for ever."""
    service = node._service_change_state
    change_state = service.callback

    def answer(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        try:
            return change_state(request, response)
        except rclpy_implementation.RCLError as error:
            node.get_logger().warning(f"transition {request.transition.id} rejected: {error}")
            response.success = False
            return response

    service.callback = answer
