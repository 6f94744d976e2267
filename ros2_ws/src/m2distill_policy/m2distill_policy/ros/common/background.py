"""Slow work beside the control loop: it runs on a thread, and `poll` delivers its outcome on the node's thread."""

import os
import queue
import threading
from collections.abc import Callable
from typing import Any

JOIN_LIMIT_S = 5.0
NICENESS = 10  # added to that of the process


class BackgroundExecutor:
    """Runs jobs on low-priority threads."""

    def __init__(self):
        self._outcomes: queue.SimpleQueue = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def run(self, job: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        """Start `job`; a later `poll` calls `done(result, None)` or `done(None, error)`."""

        def work() -> None:
            lower_priority()
            try:
                self._outcomes.put((done, job(), None))
            except Exception as error:
                self._outcomes.put((done, None, error))

        thread = threading.Thread(target=work, name="background", daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()

    def poll(self) -> None:
        while not self._outcomes.empty():
            done, result, error = self._outcomes.get()
            done(result, error)

    def end(self) -> None:
        """Wait up to JOIN_LIMIT_S for each running job and drop its outcome."""
        for thread in self._threads:
            thread.join(JOIN_LIMIT_S)
        self._outcomes = queue.SimpleQueue()


def lower_priority() -> None:
    """Lower the priority of the current thread for good, so that the control loop runs first."""
    thread = threading.get_native_id()
    # The kernel limits the sum to 19.
    os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
