"""The stop button: a thread with a ROS client of its own, so that no image, page or other order delays a stop."""

import threading
import time
from collections.abc import Callable

from m2distill_policy.errors import UserError
from m2distill_policy.ros.clients.client_node import ClientNode
from m2distill_policy.ros.clients.stop_all import Stopper

WATCH_PERIOD_S = 0.5  # how often policies are looked for, so that a stop finds its connections ready
END_LIMIT_S = 2.0
IDLE, STOPPING, STOPPED, FAILED = "idle", "stopping", "stopped", "failed"


class StopThread:
    """Stops all policies of the dashboard's namespace, or of the domain if it has none, as `instruct --stop` does.

    Args:
        namespace: Namespace of the dashboard.
        on_change: Function that is called on this thread whenever `result` has changed.
    """

    def __init__(self, namespace: str, on_change: Callable[[], None]):
        self._namespace, self._on_change = namespace.strip("/"), on_change
        self.result: dict[str, str | float] = {"state": IDLE, "text": "", "time": 0.0, "number": 0}
        self._number = 0  # of stops
        self._pressed, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="stop", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def press(self) -> None:
        """Request a stop; from any thread. Presses during a stop lead to one more."""
        self._pressed.set()

    @property
    def is_stopping(self) -> bool:
        return self._pressed.is_set() or self.result["state"] == STOPPING

    def end(self) -> None:
        """End the thread after a stop that is in progress, if it ends soon."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(END_LIMIT_S)

    def _run(self) -> None:
        node = ClientNode("dashboard_stop", self._namespace)
        stopper = Stopper(node, self._namespace)
        while not self._ended.is_set():
            if self._pressed.wait(WATCH_PERIOD_S):
                self._stop(stopper)
                continue
            try:
                stopper.watch()
            except Exception as error:  # the thread must live for the next press
                node.get_logger().error(f"the stop button lost its connections and makes them again: {error}")
                stopper = Stopper(node, self._namespace)
        node.destroy_node()

    def _stop(self, stopper: Stopper) -> None:
        self._number += 1
        self._report(STOPPING, "stopping")  # before the press is forgotten: see is_stopping
        self._pressed.clear()
        try:
            self._report(STOPPED, f"stopped: {', '.join(stopper.stop())}")
        except UserError as error:
            self._report(FAILED, str(error))
        except Exception as error:  # a defect must not look like a stop
            self._report(FAILED, f"NOT stopped: {type(error).__name__}: {error}; use the arm's own stop")

    def _report(self, state: str, text: str) -> None:
        self.result = {"state": state, "text": text, "time": time.time(), "number": self._number}
        self._on_change()
