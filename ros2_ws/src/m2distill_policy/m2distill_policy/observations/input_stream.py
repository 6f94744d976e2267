"""The newest value of one input, with its stamp and its age limit. Time is an argument: there is no clock here."""

from dataclasses import dataclass
from typing import Any


@dataclass
class InputStream:
    """Holds what one topic said last; a rejected message counts as having nothing until a good one arrives."""

    name: str
    max_age_ns: int
    max_lead_ns: int  # how far a stamp may lie in the future, for clocks that disagree a little
    value: Any = None
    stamp_ns: int = 0
    problem: str = ""

    def __post_init__(self):
        self.clear()

    def clear(self) -> None:
        self.value, self.problem = None, f"{self.name}: nothing received yet"

    def accept(self, value: Any, stamp_ns: int) -> None:
        self.value, self.stamp_ns, self.problem = value, stamp_ns, ""

    def reject(self, reason: str) -> None:
        self.value, self.problem = None, reason

    def why_unusable(self, now_ns: int) -> str:
        """Empty when the value may be used now, else the reason it may not: the same text for as long as it lasts."""
        if self.problem:
            return self.problem
        age_ns = now_ns - self.stamp_ns
        if age_ns > self.max_age_ns:
            return f"{self.name}: newest is older than {self.max_age_ns / 1e6:.0f} ms"
        if -age_ns > self.max_lead_ns:
            return (
                f"{self.name}: stamp is more than {self.max_lead_ns / 1e6:.0f} ms in the future; check that the "
                "clocks agree"
            )
        return ""
