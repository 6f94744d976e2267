"""The command watchdog: a thread of its own, so that it bites even while the node's thread hangs in the policy."""

import threading
import time
from collections.abc import Callable


class Watchdog:
    """`bite()` is called, once, when a `feed` was not followed by another or by a `rest` within the time limit."""

    def __init__(self, timeout_s: float, bite: Callable[[], None]):
        self._timeout_s, self._bite = timeout_s, bite
        self._change = threading.Condition()
        self._deadline_s: float | None = None
        self._ended = False
        self.bites = 0
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def feed(self) -> None:
        with self._change:
            sleeping = self._deadline_s is None
            self._deadline_s = time.monotonic() + self._timeout_s
            if sleeping:
                self._change.notify()

    def rest(self) -> None:
        """The arm stands still: there is nothing to watch."""
        with self._change:
            self._deadline_s = None

    def end(self) -> None:
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
                    self.bites += 1
                    self._bite()  # under the lock: no command can be sent before the zero one
                else:
                    self._change.wait(left_s)
