"""How regularly a run acted: counts and times, told while it goes on and summed up at its end. No clock here."""

from array import array
from collections.abc import Sequence

import numpy as np

LATE = 1.5  # periods between two commands that count as an overrun
KEPT = 100_000  # steps remembered for the summary: 80 minutes at 20 Hz


class TimingStats:
    def __init__(self, period_s: float):
        self._period_s = period_s
        self.restart()

    def restart(self) -> None:
        self.steps = self.overruns = self.holds = 0
        self._intervals_s, self._step_s = array("d"), array("d")  # a quarter of what lists take
        self._told = 0  # steps told by `numbers`
        self._last_s: float | None = None  # when the last command was sent; None after a hold

    def stepped(self, now_s: float, duration_s: float) -> None:
        """A command was sent now, and took this long to decide on."""
        self.steps += 1
        self._step_s.append(duration_s)
        if self._last_s is not None:
            self._intervals_s.append(now_s - self._last_s)
            self.overruns += now_s - self._last_s > LATE * self._period_s
        self._last_s = now_s
        for kept in (self._intervals_s, self._step_s):
            del kept[:-KEPT]

    def held(self) -> None:
        """The arm is held instead; one call for as long as it lasts will do."""
        self.holds += self._last_s is not None
        self._last_s = None

    def numbers(self) -> dict[str, str]:
        """By name, of the run so far; times of the steps since this was asked last."""
        recent_s = self._step_s[-max(1, self.steps - self._told) :]
        intervals_s = self._intervals_s[-max(1, self.steps - self._told) :]
        self._told = self.steps
        numbers = {"commands": str(self.steps), "overruns": str(self.overruns), "holds": str(self.holds)}
        if recent_s:
            numbers["policy step (ms)"] = _ms(recent_s)
        if intervals_s:
            numbers["commands (Hz)"] = f"{len(intervals_s) / sum(intervals_s):.1f}"
        return numbers

    def summary(self) -> str:
        """One line; empty when nothing was commanded."""
        if not self.steps:
            return ""
        line = f"{self.steps} commands, {_ms(self._step_s)} each"
        if self._intervals_s:
            line += f"; every {_ms(self._intervals_s)}"
        return f"{line}; {self.overruns} late by half a period, held {self.holds} times"


def _ms(times_s: Sequence[float]) -> str:
    median, slow = np.percentile(times_s, (50, 99)) * 1000
    return f"{median:.1f} ms (99 %: {slow:.1f}, most {max(times_s) * 1000:.1f})"
