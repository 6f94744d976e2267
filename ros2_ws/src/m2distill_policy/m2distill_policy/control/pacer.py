"""Schedule of the control steps: a fixed rate, in phase with the observations. It reads no clock.

A free-running loop acts up to one period after an observation. This one follows the phase of the inputs. It acts when a
complete set of inputs arrives, up to a quarter of a period early or late, and each step shifts the schedule slightly
towards the arrivals. Inputs at another rate are acted on at the scheduled rate, within one per cent.
"""

PULL = 50  # time constant of the phase correction, in steps


class Pacer:
    """Pacer for a period of `period_ns`; times are in ns of a steady clock. Call `due` often, and at every arrival."""

    def __init__(self, period_ns: int):
        self._period_ns = period_ns
        self._slack_ns = period_ns // 4
        self.restart()

    def restart(self) -> None:
        """Act on the next complete set of inputs, whenever it arrives."""
        self._due_ns: int | None = None
        self._fresh_ns: int | None = None  # when the first set without an action was complete

    def complete(self, now_ns: int) -> None:
        """Record that every input has received a message since the last action."""
        if self._fresh_ns is None:
            self._fresh_ns = now_ns

    def due(self, now_ns: int) -> bool:
        """Return whether to act now. The pacer counts True as an action."""
        if self._due_ns is None:
            if self._fresh_ns is None:
                return False
            self._due_ns = now_ns
        if self._fresh_ns is None:
            earliest_ns = self._due_ns + self._slack_ns  # wait briefly for late inputs
        else:
            earliest_ns = self._due_ns - (self._slack_ns if self._fresh_ns == now_ns else 0)
        if now_ns < earliest_ns:
            return False
        lead_ns = 0 if self._fresh_ns is None else self._fresh_ns - self._due_ns
        self._due_ns += self._period_ns + lead_ns // PULL
        if self._due_ns <= now_ns - self._period_ns:  # more than a period behind: skip the missed steps
            self._due_ns = now_ns + self._period_ns
        self._fresh_ns = None
        return True
