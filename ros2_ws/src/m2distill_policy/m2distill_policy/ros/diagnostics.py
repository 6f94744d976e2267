"""What the policy node says about itself once a second on /diagnostics."""

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
}


class InputMonitor:
    """When each input was heard last, and counts since the last report: messages, commands, time of a policy step.

    Times are those of a steady clock, in ns: it goes on when the simulation's clock stands still.
    """

    def __init__(self, inputs: list[str], silence_limit_ns: int):
        self._silence_limit_ns = silence_limit_ns
        self._heard_ns: dict[str, int | None] = dict.fromkeys(inputs)
        self._counts = dict.fromkeys(inputs, 0)
        self._step_s: list[float] = []

    def heard(self, name: str, now_ns: int) -> None:
        self._heard_ns[name] = now_ns
        self._counts[name] += 1

    def silence(self, now_ns: int) -> str:
        """Why an input counts as dead; empty when none does."""
        for name, heard_ns in self._heard_ns.items():
            if heard_ns is None:
                return f"{name}: nothing received yet"
            if now_ns - heard_ns > self._silence_limit_ns:
                return f"{name}: silent for more than {self._silence_limit_ns * 1e-9:g} s"
        return ""

    def stepped(self, duration_s: float) -> None:
        self._step_s.append(duration_s)

    def report(self, period_s: float) -> dict[str, str]:
        """The numbers as text, by name; starts to count anew."""
        values = {f"{name} (Hz)": f"{count / period_s:.1f}" for name, count in self._counts.items()}
        values["commands (Hz)"] = f"{len(self._step_s) / period_s:.1f}"
        if self._step_s:
            values["slowest step (ms)"] = f"{1000 * max(self._step_s):.1f}"
            values["mean step (ms)"] = f"{1000 * sum(self._step_s) / len(self._step_s):.1f}"
        self._counts = dict.fromkeys(self._counts, 0)
        self._step_s = []
        return values


def diagnostics(node_name: str, status: PolicyStatus, values: Mapping[str, str], stamp: Time) -> DiagnosticArray:
    level, word = LEVELS[status.state]
    message = DiagnosticArray()
    message.header.stamp = stamp
    values = {"instruction": status.instruction, "checkpoint": status.checkpoint_id, **values}
    message.status.append(DiagnosticStatus(
        level=level, name=f"{node_name}: policy", hardware_id="", message=f"{word}: {status.reason}".rstrip(": "),
        values=[KeyValue(key=key, value=value) for key, value in values.items()]))
    return message
