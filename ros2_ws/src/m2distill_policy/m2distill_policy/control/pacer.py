"""When to act: at a fixed rate, and as soon as possible after the observation it acts on. No clock here.

A free-running loop acts up to a period late. This one follows the phase of the inputs: it acts on the arrival of a
complete set of them, up to a quarter of a period early or late, and shifts its schedule a little towards the arrivals
with every step. Inputs of another rate than its own are acted on at its own rate, within a hundredth.
"""

PULL = 50  # steps in which the schedule would reach the phase of the arrivals


class Pacer:
    """Times are those of a steady clock, in ns. Call `due` at every arrival and often in between."""

    def __init__(self, period_ns: int):
        self._period_ns = period_ns
        self._slack_ns = period_ns // 4
        self.restart()

    def restart(self) -> None:
        """Act on the next complete set, whenever it comes."""
        self._due_ns: int | None = None
        self._fresh_ns: int | None = None  # when the first set that is not acted on yet was complete

    def complete(self, now_ns: int) -> None:
        """Since the last action every input has brought something."""
        if self._fresh_ns is None:
            self._fresh_ns = now_ns

    def due(self, now_ns: int) -> bool:
        """Whether to act now; True counts as an action."""
        if self._due_ns is None:
            if self._fresh_ns is None:
                return False
            self._due_ns = now_ns
        if self._fresh_ns is None:
            earliest_ns = self._due_ns + self._slack_ns  # wait a little for what is late
        else:
            earliest_ns = self._due_ns - (self._slack_ns if self._fresh_ns == now_ns else 0)
        if now_ns < earliest_ns:
            return False
        lead_ns = 0 if self._fresh_ns is None else self._fresh_ns - self._due_ns
        self._due_ns += self._period_ns + lead_ns // PULL
        if self._due_ns <= now_ns - self._period_ns:  # behind by more than a period: those steps are lost
            self._due_ns = now_ns + self._period_ns
        self._fresh_ns = None
        return True
