"""Timing of a run: counts, intervals and durations, for reports during the run and a summary at its end."""

from array import array
from collections.abc import Sequence

import numpy as np

LATE = 1.5  # interval between two commands, in periods, above which it counts as an overrun
KEPT = 100_000  # steps kept for the summary: 80 minutes at 20 Hz


class TimingStats:
    """Timing statistics of one run with the control period `period_s`."""

    def __init__(self, period_s: float):
        self._period_s = period_s
        self.restart()

    def restart(self) -> None:
        self.steps = self.overruns = self.holds = 0
        self._intervals_s, self._step_s = array("d"), array("d")  # a quarter of the memory of lists
        self._reported = 0  # steps that `numbers` has reported
        self._last_s: float | None = None  # when the last command was sent; None after a hold

    def stepped(self, now_s: float, duration_s: float) -> None:
        """Record a command that was sent at `now_s` after a computation of `duration_s`."""
        self.steps += 1
        self._step_s.append(duration_s)
        if self._last_s is not None:
            self._intervals_s.append(now_s - self._last_s)
            self.overruns += now_s - self._last_s > LATE * self._period_s
        self._last_s = now_s
        for kept in (self._intervals_s, self._step_s):
            del kept[:-KEPT]

    def held(self) -> None:
        """Record that the arm is held; one call per hold is enough."""
        self.holds += self._last_s is not None
        self._last_s = None

    def numbers(self) -> dict[str, str]:
        """Return statistics of the run by name; times are those of the steps since the previous call."""
        recent_s = self._step_s[-max(1, self.steps - self._reported) :]
        intervals_s = self._intervals_s[-max(1, self.steps - self._reported) :]
        self._reported = self.steps
        numbers = {"commands": str(self.steps), "overruns": str(self.overruns), "holds": str(self.holds)}
        if recent_s:
            numbers["policy step (ms)"] = _ms(recent_s)
        if intervals_s:
            numbers["commands (Hz)"] = f"{len(intervals_s) / sum(intervals_s):.1f}"
        return numbers

    def summary(self) -> str:
        """Return one line about the run; empty if there was no command."""
        if not self.steps:
            return ""
        line = f"{self.steps} commands, {_ms(self._step_s)} each"
        if self._intervals_s:
            line += f"; every {_ms(self._intervals_s)}"
        return f"{line}; {self.overruns} late by half a period, held {self.holds} times"


def _ms(times_s: Sequence[float]) -> str:
    median, slow = np.percentile(times_s, (50, 99)) * 1000
    return f"{median:.1f} ms (99 %: {slow:.1f}, maximum {max(times_s) * 1000:.1f})"
