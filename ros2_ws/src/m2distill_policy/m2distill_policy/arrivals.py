"""How regularly a topic came while it was recorded: counts, rate, longest gap, and what was published but not heard."""

from dataclasses import dataclass, field


@dataclass
class Arrivals:
    """Of one topic. Times are of the publishers' clock, ns."""

    gap_ns: int  # a longer silence between two messages counts
    count: int = 0
    gaps: int = 0
    longest_ns: int = 0
    lost: int = 0  # by the publisher's own count
    _last_ns: int = field(default=0, repr=False)
    _last_number: int = field(default=0, repr=False)

    def heard(self, time_ns: int, number: int) -> None:
        """`number`: the publisher's count of its messages, which begins anew with every publisher."""
        if self.count:
            silence_ns = time_ns - self._last_ns
            self.longest_ns = max(self.longest_ns, silence_ns)
            self.gaps += silence_ns > self.gap_ns
            self.lost += max(0, number - self._last_number - 1)
        self.count += 1
        self._last_ns, self._last_number = time_ns, number

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
