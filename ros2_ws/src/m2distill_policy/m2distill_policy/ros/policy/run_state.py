"""State of the policy node from its activation to its deactivation."""

from dataclasses import dataclass, field

from m2distill_policy.ros.common.diagnostics import InputMonitor
from m2distill_policy.ros.policy.watchdog import Watchdog


@dataclass
class RunState:
    """State that is created at every activation, so that nothing of an earlier one remains."""

    monitor: InputMonitor
    watchdog: Watchdog
    handled_trips: int = 0  # trips of the watchdog that the control loop has handled
    stamps_ns: dict[str, int] = field(default_factory=dict)  # inputs received since the last complete set
    complete_ns: int | None = None  # lockstep: stamp of the last complete set
    hold_reason: str = ""  # empty while the arm moves
    stopped_s: float = 0.0  # when the last zero command was published
