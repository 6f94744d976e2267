"""Watchdog of the commands. It has its own thread, so that it trips even while the node's thread hangs."""

import threading
import time
from collections.abc import Callable


class Watchdog:
    """Calls `on_trip()` once if a `feed` is not followed by another one or by a `rest` within `timeout_s`."""

    def __init__(self, timeout_s: float, on_trip: Callable[[], None]):
        self._timeout_s, self._on_trip = timeout_s, on_trip
        self._change = threading.Condition()
        self._deadline_s: float | None = None
        self._ended = False
        self.trips = 0
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def feed(self) -> None:
        """Restart the time limit after a command."""
        with self._change:
            sleeping = self._deadline_s is None
            self._deadline_s = time.monotonic() + self._timeout_s
            if sleeping:
                self._change.notify()

    def rest(self) -> None:
        """Suspend the time limit while the arm is held."""
        with self._change:
            self._deadline_s = None

    def end(self) -> None:
        """End the thread."""
        with self._change:
            self._ended, self._deadline_s = True, None
            self._change.notify()
        self._thread.join()

    def _watch(self) -> None:
        with self._change:
            while not self._ended:
                left_s = None if self._deadline_s is None else self._deadline_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    self._deadline_s = None
                    self.trips += 1
                    self._on_trip()  # under the lock, so that no command is published before the zero command
                else:
                    self._change.wait(left_s)
