"""Decision when a command to the gripper becomes a new goal. No clock here; time is an argument."""

import math
import threading


class GripperFilter:
    """Filter between commands at the control rate and goals of an action server.

    Each goal restarts the server's motion, and a policy may change between open and closed from step to step. A goal is
    due when the commands have differed from the last goal by the hysteresis, in one direction, for the dwell time.
    Methods may be called from any thread.

    Args:
        hysteresis_m: Minimum difference from the opening of the last goal.
        dwell_s: Time for which commands must differ.
    """

    def __init__(self, hysteresis_m: float, dwell_s: float):
        self._hysteresis_m, self._dwell_s = hysteresis_m, dwell_s
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget the last goal, because others may have moved the gripper since."""
        with self._lock:
            self._goal_m: float | None = None
            # The direction of the change, or the first opening if there is no goal; and since when.
            self._since: tuple[float, float] | None = None

    def is_due(self, width_m: float, now_s: float) -> bool:
        """Return whether to send this opening as a goal now; True counts it as the last goal."""
        with self._lock:
            if self._goal_m is None:  # wait for commands that agree with each other
                began = self._since is not None and abs(width_m - self._since[0]) <= self._hysteresis_m
                towards = width_m
            else:
                change_m = width_m - self._goal_m
                if abs(change_m) < self._hysteresis_m or change_m == 0:
                    self._since = None
                    return False
                towards = math.copysign(1.0, change_m)
                began = self._since is not None and self._since[0] == towards
            if not began or self._since is None:
                self._since = towards, now_s
            if now_s - self._since[1] < self._dwell_s:
                return False
            self._goal_m, self._since = width_m, None
            return True
