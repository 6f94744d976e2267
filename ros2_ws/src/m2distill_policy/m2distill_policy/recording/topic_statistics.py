"""Regularity of a topic: message count, rate, longest gap, and messages that were published but not received."""

from dataclasses import dataclass, field


@dataclass
class TopicStatistics:
    """Statistics of one topic. All times are of one clock, in ns."""

    gap_ns: int  # a longer silence between two messages is a gap
    count: int = 0
    gaps: int = 0
    longest_ns: int = 0  # longest silence between two messages
    lost: int = 0  # messages that were published but not received, by the publisher's numbers
    _first_ns: int = field(default=0, repr=False)
    _last_ns: int = field(default=0, repr=False)
    _last_number: int = field(default=0, repr=False)

    def add(self, time_ns: int, number: int = 0) -> None:
        """Count one received message.

        Args:
            time_ns: time of the message.
            number: the publisher's message number, 0 if unknown. Every publisher starts its own count.
        """
        if self.count:
            silence_ns = time_ns - self._last_ns
            self.longest_ns = max(self.longest_ns, silence_ns)
            self.gaps += silence_ns > self.gap_ns
            self.lost += max(0, number - self._last_number - 1)
        else:
            self._first_ns = time_ns
        self.count += 1
        self._last_ns, self._last_number = time_ns, number

    @property
    def rate_hz(self) -> float:
        """Mean rate from the first to the last message."""
        return (self.count - 1) * 1e9 / max(1, self._last_ns - self._first_ns)

    def problems(self) -> str:
        """Return what makes these messages unsuitable for training; empty if nothing does."""
        parts = []
        if not self.count:
            parts.append("nothing received")
        if self.gaps:
            parts.append(f"{self.gaps} gaps, the longest {self.longest_ns / 1e6:.0f} ms")
        if self.lost:
            parts.append(f"{self.lost} lost")
        return ", ".join(parts)
