"""Orders of the operator to the recorder, and a vibration or a sound for each answer.

With a joystick the signal is a vibration, which joy_node plays; with a keyboard it is the bell of the terminal. The
answer itself is in the log.
"""

import time
from collections import deque
from collections.abc import Callable

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JoyFeedback
from std_srvs.srv import Trigger

from m2distill_policy.control.teleop import ORDERS

ANSWER_LIMIT_S = 15.0
MOST_WAITING = 4  # orders; more are dropped, because nobody presses so fast
HALF_PULSE_S = 0.15
PULSES = {"start": 1, "success": 1, "failure": 1, "keep": 2, "discard": 3}
REJECTED_PULSES = 5
VIBRATION = 0.7  # of the strongest


class RecorderOrders:
    """Client of the recorder's services. Orders are sent one after the other, in the order of the buttons.

    Args:
        node: Node of the clients.
        signal: Function that begins (True) and ends (False) one pulse of the signal.
    """

    def __init__(self, node: Node, signal: Callable[[bool], None]):
        self._node, self._signal = node, signal
        self._clients = {order: node.create_client(Trigger, f"recorder/{order}") for order in ORDERS}
        self._waiting: deque[str] = deque()
        self._sent: tuple[str, Future, float] | None = None  # order, its answer, and until when it is awaited
        self._halves = 0  # of pulses that are left; the next one begins a pulse if it is even
        node.create_timer(HALF_PULSE_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def send(self, order: str) -> None:
        """Send an order after those that wait."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(order)
        self._send_next()

    def _send_next(self) -> None:
        while self._sent is None and self._waiting:
            order = self._waiting.popleft()
            client = self._clients[order]
            if client.service_is_ready():
                answer = client.call_async(Trigger.Request())
                self._sent = order, answer, time.monotonic() + ANSWER_LIMIT_S
                answer.add_done_callback(self._on_answer)
            else:
                self._report(order, False, f"no node offers {client.srv_name}; start one with m2distill run --record")

    def _on_answer(self, answer: Future) -> None:
        if self._sent is None or answer is not self._sent[1]:
            return  # of an order that is no longer awaited
        order, self._sent = self._sent[0], None
        self._report(order, answer.result().success, answer.result().message)
        self._send_next()

    def _report(self, order: str, accepted: bool, message: str) -> None:
        log = self._node.get_logger()
        if accepted:  # two calls: a logger has one severity per line of code
            log.info(f"{order}: {message}")
        else:
            log.warning(f"{order}: {message}")
        self._halves = 2 * (PULSES[order] if accepted else REJECTED_PULSES)

    def _tick(self) -> None:
        """Begin or end a pulse, and give up an order that is not answered."""
        if self._halves:
            self._signal(self._halves % 2 == 0)
            self._halves -= 1
        if self._sent is not None and time.monotonic() > self._sent[2]:
            order, answer, _ = self._sent
            self._sent = None
            self._clients[order].remove_pending_request(answer)
            self._report(order, False, f"no answer within {ANSWER_LIMIT_S:.0f} s, the order may not have arrived")
            self._send_next()


def vibration(on: bool) -> JoyFeedback:
    """Return the message that begins or ends a vibration; joy_node ends one by itself after a second."""
    return JoyFeedback(type=JoyFeedback.TYPE_RUMBLE, id=0, intensity=VIBRATION if on else 0.0)
