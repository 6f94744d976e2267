"""Diagnostics of the policy node: its message on /diagnostics, and the rates and gaps of its inputs."""

from collections import deque
from collections.abc import Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from m2distill_interfaces.msg import PolicyStatus

LEVELS = {
    PolicyStatus.IDLE: (DiagnosticStatus.OK, "idle"),
    PolicyStatus.RUNNING: (DiagnosticStatus.OK, "running"),
    PolicyStatus.HOLDING: (DiagnosticStatus.WARN, "holding"),
    PolicyStatus.PAUSED: (DiagnosticStatus.OK, "paused"),
    PolicyStatus.FAULT: (DiagnosticStatus.ERROR, "fault"),
    PolicyStatus.OPERATOR: (DiagnosticStatus.OK, "operator"),
}
WINDOW_NS = 1_000_000_000  # window in which messages are counted for a rate
MAX_RATE_HZ = 2000  # higher rates are reported as this


class InputMonitor:
    """Arrival times of each input, in ns of a steady clock, which advances while the simulation clock is stopped."""

    def __init__(self, inputs: list[str], silence_limit_ns: int):
        self._silence_limit_ns = silence_limit_ns
        self._received_ns: dict[str, deque[int]] = {name: deque(maxlen=MAX_RATE_HZ) for name in inputs}

    def received(self, name: str, now_ns: int) -> None:
        self._received_ns[name].append(now_ns)

    def silence(self, now_ns: int) -> str:
        """Return which input has been silent for too long; empty if none has."""
        for name, received_ns in self._received_ns.items():
            if not received_ns:
                return f"{name}: nothing received yet"
            if now_ns - received_ns[-1] > self._silence_limit_ns:
                return f"{name}: silent for more than {self._silence_limit_ns * 1e-9:g} s"
        return ""

    def rates_hz(self, now_ns: int) -> dict[str, float]:
        """Return the messages of each input within the last second."""
        return {
            name: sum(now_ns - t <= WINDOW_NS for t in received_ns) * 1e9 / WINDOW_NS
            for name, received_ns in self._received_ns.items()
        }


def diagnostics(node_name: str, status: PolicyStatus, values: Mapping[str, str], stamp: Time) -> DiagnosticArray:
    """Return the policy node's message on /diagnostics: its status and further values by name."""
    level, word = LEVELS[status.state]
    topics = values.get("topics", "")
    if topics and level == DiagnosticStatus.OK:
        level = DiagnosticStatus.WARN
    reason = status.reason or topics
    message = DiagnosticArray()
    message.header.stamp = stamp
    values = {
        "instruction": status.instruction,
        "checkpoint": status.checkpoint_id,
        "previous checkpoint": status.previous_checkpoint_id,
        "notice": status.notice,
        **values,
    }
    message.status.append(
        DiagnosticStatus(
            level=level,
            name=f"{node_name}: policy",
            hardware_id="",
            message=f"{word}: {reason}".rstrip(": "),
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
    )
    return message
