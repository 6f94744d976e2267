"""Status and diagnostics of the policy node, computed from its session and its run."""

from rclpy.node import Node

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.control.session import PolicySession
from m2distill_policy.control.timing_stats import TimingStats
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.common.topic_checks import topic_problems
from m2distill_policy.ros.policy.run_state import RunState
from m2distill_policy.ros.policy.status_publisher import StatusPublisher


class RunStatus:
    """Publishes the state of the run through `publisher`; counts the timing of its steps in `timing`."""

    def __init__(self, entities: ManagedEntities, session: PolicySession, publisher: StatusPublisher):
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
        run, session = self._run, self._session
        assert run is not None  # the node is active
        if session.fault:
            state = PolicyStatus.FAULT
        elif run.paused:
            state = PolicyStatus.PAUSED
        elif not session.instruction:
            state = PolicyStatus.IDLE
        else:
            state = PolicyStatus.HOLDING if run.hold_reason else PolicyStatus.RUNNING
        self._publisher.status(
            state=state,
            reason=session.fault or run.hold_reason,
            instruction=run.last_instruction if run.paused else session.instruction,
        )

    def summarize(self) -> str:
        """Log and return the timing of the run that ends, and start the next one; empty if it had no command."""
        assert self._run is not None  # the node is active
        summary = self.timing.summary()
        if summary:
            self._last_run = summary
            self._node.get_logger().info(f"run of {self._run.last_instruction!r}: {summary}")
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
            "topics": "; ".join(topic_problems(self._entities)),
        }
