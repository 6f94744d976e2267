"""Slow work beside the control loop: done on a thread, its outcome taken on the node's thread by `poll`."""

import queue
import threading
from collections.abc import Callable
from typing import Any

JOIN_LIMIT_S = 5.0


class Background:
    def __init__(self):
        self._outcomes: queue.SimpleQueue = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def run(self, job: Callable[[], Any], done: Callable[[Any, Exception | None], None]) -> None:
        """`done(result, None)` or `done(None, error)` is called by a later `poll`."""
        def work() -> None:
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
