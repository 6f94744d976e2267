"""How regularly the messages of a topic came: count, rate, longest gap, and what was published but not heard."""

from dataclasses import dataclass, field


@dataclass
class TopicStatistics:
    """Of one topic. Times are all of one clock, ns."""

    gap_ns: int  # a longer silence between two messages counts
    count: int = 0
    gaps: int = 0
    longest_ns: int = 0
    lost: int = 0  # by the publisher's own count
    _first_ns: int = field(default=0, repr=False)
    _last_ns: int = field(default=0, repr=False)
    _last_number: int = field(default=0, repr=False)

    def heard(self, time_ns: int, number: int = 0) -> None:
        """`number`: the publisher's count of its messages, where it is known; it begins anew with every publisher."""
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
        """On the average."""
        return (self.count - 1) * 1e9 / max(1, self._last_ns - self._first_ns)

    def trouble(self) -> str:
        """Empty, or what one who wants to learn from these messages should know."""
        parts = []
        if not self.count:
            parts.append("nothing heard")
        if self.gaps:
            parts.append(f"{self.gaps} gaps, the longest {self.longest_ns / 1e6:.0f} ms")
        if self.lost:
            parts.append(f"{self.lost} lost")
        return ", ".join(parts)
