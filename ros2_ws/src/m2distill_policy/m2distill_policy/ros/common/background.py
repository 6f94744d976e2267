"""Slow work beside the control loop: done on a thread, its outcome taken on the node's thread by `poll`."""

import os
import queue
import threading
from collections.abc import Callable
from typing import Any

JOIN_LIMIT_S = 5.0
NICENESS = 10  # beyond that of the process


class BackgroundExecutor:
    def __init__(self):
        self._outcomes: queue.SimpleQueue = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def run(self, job: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        """`done(result, None)` or `done(None, error)` is called by a later `poll`."""

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
        """Wait a little for what is under way; its outcome is dropped."""
        for thread in self._threads:
            thread.join(JOIN_LIMIT_S)
        self._outcomes = queue.SimpleQueue()


def lower_priority() -> None:
    """Of this thread alone, for good: the control loop goes first."""
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)  # 19 at most, by itself
