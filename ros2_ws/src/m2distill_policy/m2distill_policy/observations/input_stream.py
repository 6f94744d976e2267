"""Newest value of one input, with its stamp and age limit. There is no clock here; time is an argument."""

from dataclasses import dataclass
from typing import Any


@dataclass
class InputStream:
    """Newest message of one topic. After a rejected message there is no value until a valid one arrives."""

    name: str
    max_age_ns: int
    max_lead_ns: int  # tolerated offset of a stamp into the future, for clocks that differ slightly
    value: Any = None
    stamp_ns: int = 0
    problem: str = ""

    def __post_init__(self):
        self.clear()

    def clear(self) -> None:
        """Remove the value."""
        self.value, self.problem = None, f"{self.name}: nothing received yet"

    def accept(self, value: Any, stamp_ns: int) -> None:
        """Replace the value by a valid one."""
        self.value, self.stamp_ns, self.problem = value, stamp_ns, ""

    def reject(self, reason: str) -> None:
        """Remove the value because the newest message is invalid."""
        self.value, self.problem = None, reason

    def unusable_reason(self, now_ns: int) -> str:
        """Return why the value must not be used at `now_ns`; empty if it may be used.

        The text stays the same while the reason lasts.
        """
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
