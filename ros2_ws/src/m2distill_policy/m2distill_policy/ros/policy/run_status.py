"""Status and diagnostics of the policy node, computed from its session and its run."""

from rclpy.node import Node

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.control.session import PolicySession
from m2distill_policy.control.timing_stats import TimingStats
from m2distill_policy.language.instruction_text import shortened
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.policy.run_state import RunState
from m2distill_policy.ros.policy.status_publisher import StatusPublisher
from m2distill_policy.safety.authority import Authority, State

STATES = {
    State.IDLE: PolicyStatus.IDLE,
    State.HOLDING: PolicyStatus.HOLDING,
    State.RUNNING: PolicyStatus.RUNNING,
    State.PAUSED: PolicyStatus.PAUSED,
    State.OPERATOR: PolicyStatus.OPERATOR,
    State.SILENT: PolicyStatus.OPERATOR,
    State.FAULT: PolicyStatus.FAULT,
}


class RunStatus:
    """Publishes the state of the run through `publisher`; counts the timing of its steps in `timing`."""

    def __init__(
        self, entities: ManagedEntities, session: PolicySession, authority: Authority, publisher: StatusPublisher
    ):
        self._authority = authority
        self.graph = ""  # problems of the topics, for /diagnostics
        self._node: Node = entities.node
        self._entities, self._session, self._publisher = entities, session, publisher
        self.timing = TimingStats(1 / session.spec.rate_hz)
        self._last_run = ""  # summary of the previous run
        self._run: RunState | None = None
        publisher.diagnostic_values = self._diagnostic_values

    def start(self, run: RunState) -> None:
        self._run = run

    def publish(self) -> None:
        """Publish ~/status if it has changed."""
        run, authority, order = self._run, self._authority, self._authority.order
        assert run is not None  # the node is active
        reason = run.hold_reason
        if authority.fault and authority.fault not in reason:
            reason = authority.fault if authority.state is State.FAULT else f"{reason}; fault: {authority.fault}"
        self._publisher.status(
            state=STATES[authority.state],
            reason=reason,
            instruction=shortened(order.known or order.text) if order else "",
        )

    def summarize(self) -> str:
        """Log and return the timing of the run that ends, and start the next one; empty if it had no command."""
        assert self._run is not None  # the node is active
        summary = self.timing.summary()
        if summary:
            self._last_run = summary
            self._node.get_logger().info(f"run of {shortened(self._authority.last_text)!r}: {summary}")
        self.timing.restart()
        return summary

    def _diagnostic_values(self) -> dict[str, str]:
        assert self._run is not None  # the node is active
        streams = [stream for stream in self._session.streams if stream.value is not None]
        newest_ns = max((stream.stamp_ns for stream in streams), default=0)
        now_ns = self._node.get_clock().now().nanoseconds
        rates_hz = self._run.monitor.rates_hz(self._entities.steady.now().nanoseconds)
        values = {f"{name} (Hz)": f"{rate:.1f}" for name, rate in rates_hz.items()}
        for stream in streams:
            values[f"{stream.name} age (ms)"] = f"{(now_ns - stream.stamp_ns) / 1e6:.0f}"
            values[f"{stream.name} behind the newest (ms)"] = f"{(newest_ns - stream.stamp_ns) / 1e6:.0f}"
        return {
            **values,
            **self.timing.numbers(),
            "watchdog trips": str(self._run.watchdog.trips),
            "last run": self._last_run,
            "topics": self.graph,
        }
