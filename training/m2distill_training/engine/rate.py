"""Moving rate of gradient steps, for the log and the estimate of the time that is left."""

import time
from collections import deque

WINDOW_S = 30.0  # long enough to include a saved state, short enough to forget a slow start


class MovingRate:
    """Events per second over the last WINDOW_S, or over the last event if it took longer."""

    def __init__(self, started: float | None = None):
        """Begin to count; `started` is a time of time.monotonic, by default now."""
        self._times = deque([time.monotonic() if started is None else started])

    def after(self, now: float) -> float:
        """Count one event at the time `now` and return the rate."""
        self._times.append(now)
        while len(self._times) > 2 and self._times[1] <= now - WINDOW_S:
            self._times.popleft()
        return (len(self._times) - 1) / max(now - self._times[0], 1e-9)
