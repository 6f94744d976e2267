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
    stamp_ns: int = 0  # of the newest part of the value
    oldest_ns: int = 0  # of its oldest part
    oldest_part: str = ""  # its name, if the value has parts of different stamps
    problem: str = ""

    def __post_init__(self):
        self.clear()

    def clear(self) -> None:
        """Remove the value."""
        self.value, self.problem = None, f"{self.name}: nothing received yet"

    def accept(self, value: Any, stamp_ns: int, oldest_part: str = "", oldest_ns: int | None = None) -> bool:
        """Replace the value by a valid one.

        Args:
            value: The value.
            stamp_ns: Stamp of its newest part.
            oldest_part: Name of its oldest part, if the parts have different stamps.
            oldest_ns: Stamp of that part; None: `stamp_ns`.

        Returns:
            Whether the stamps leap, back or ahead by more than an age: a simulator was reset, or messages are missing.
        """
        leapt = self.value is not None and abs(stamp_ns - self.stamp_ns) > self.max_age_ns
        self.value, self.stamp_ns, self.problem = value, stamp_ns, ""
        self.oldest_part, self.oldest_ns = oldest_part, stamp_ns if oldest_ns is None else oldest_ns
        return leapt

    def reject(self, reason: str) -> None:
        """Remove the value because the newest message is invalid."""
        self.value, self.problem = None, reason

    def unusable_reason(self, now_ns: int) -> str:
        """Return why the value must not be used at `now_ns`; empty if it may be used.

        The text stays the same while the reason lasts.
        """
        if self.problem:
            return self.problem
        if now_ns - self.oldest_ns > self.max_age_ns:
            part = f" {self.oldest_part}" if self.oldest_part else ""
            return f"{self.name}: newest{part} is older than {self.max_age_ns / 1e6:.0f} ms"
        if self.stamp_ns - now_ns > self.max_lead_ns:
            return (
                f"{self.name}: stamp is more than {self.max_lead_ns / 1e6:.0f} ms in the future; check that the "
                "clocks agree"
            )
        return ""
