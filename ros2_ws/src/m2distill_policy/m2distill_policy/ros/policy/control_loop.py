"""Control loop of an active policy node: it answers observations with commands, or holds the arm.

With pacing `real_time` it acts at the spec's rate, in phase with the inputs (`control/pacer.py`), and checks every few
milliseconds whether it may continue. With pacing `lockstep` it acts once for each complete set of inputs with equal
stamps. It answers a repeated set with the same command, so a simulator may wait for it.
"""

import time
import traceback
from collections.abc import Callable

from rclpy.node import Node

from m2distill_policy.action import Command, Hold
from m2distill_policy.bringup.parameters import PolicyParameters
from m2distill_policy.control.pacer import Pacer
from m2distill_policy.control.session import POSE, PolicySession
from m2distill_policy.ros.common.diagnostics import InputMonitor
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.common.topic_checks import duplicate_inputs, other_policies, topic_problems
from m2distill_policy.ros.policy.execute_server import ExecuteServer
from m2distill_policy.ros.policy.outputs import Outputs
from m2distill_policy.ros.policy.part_sources import PartSources
from m2distill_policy.ros.policy.run_state import RunState
from m2distill_policy.ros.policy.run_status import RunStatus
from m2distill_policy.ros.policy.status_publisher import StatusPublisher
from m2distill_policy.ros.policy.watchdog import Watchdog
from m2distill_policy.safety.authority import Authority, Event, State

WATCH_PERIOD_S = 0.01
SUPERVISION_PERIOD_S = 0.05
DIAGNOSTICS_PERIOD_S = 1.0
RESEND_AFTER_S = 0.4  # lockstep: an observation that is repeated sooner has crossed with its answer


class ControlLoop:
    """Control loop of one policy session.

    Args:
        entities: Entities of the node; the loop adds its timers.
        session: The policy and its inputs.
        authority: Who may move the arm.
        settings: Parameters of the node.
        outputs: Command topics.
        publisher: Status topics.
        goals: Action server of the goals.
    """

    run: RunState  # from start() on
    on_fault: Callable[[str], None]  # latches a fault; set by the controller
    check_operator: Callable[[], None]  # notices an operator's silence; set by the controller
    part_sources: list[PartSources]  # of joints and frames; set by the node

    def __init__(
        self,
        entities: ManagedEntities,
        session: PolicySession,
        authority: Authority,
        settings: PolicyParameters,
        outputs: Outputs,
        publisher: StatusPublisher,
        goals: ExecuteServer,
    ):
        self._node: Node = entities.node
        self._entities, self._authority = entities, authority
        self._graph_hold = ""  # why the topics of the ROS graph forbid a motion
        self._steady = entities.steady
        self._session, self._outputs, self._publisher, self._goals = session, outputs, publisher, goals
        self._inputs = [stream.name for stream in session.streams]
        self._lockstep = settings.pacing == "lockstep"
        self._pacer = Pacer(session.spec.period_ns)
        self.status = RunStatus(entities, session, authority, publisher)
        if not self._lockstep:
            entities.timer(WATCH_PERIOD_S, self._watch)
        entities.timer(SUPERVISION_PERIOD_S, self._supervise)
        entities.timer(DIAGNOSTICS_PERIOD_S, self._diagnose)

    def start(self) -> None:
        """Start a run without an instruction: an activation moves nothing, whatever was received before."""
        limits = self._session.limits
        monitor = InputMonitor(self._inputs, round(limits.watchdog_s * 1e9))
        self.run = RunState(monitor, Watchdog(limits.command_timeout_s, self._outputs.stop))
        self.status.start(self.run)
        self._session.stop()
        self._session.reset()
        self._outputs.clear()
        self._check_graph()

    def end(self) -> None:
        """End the run; the zero command is the last message published."""
        self.run.watchdog.end()
        self._session.stop()
        self.status.summarize()
        self.run.hold_reason = "not active"
        self.status.publish()
        self._outputs.stop()
        self._outputs.flush()

    def abandon(self) -> None:
        """Stop the arm and the watchdog's thread after an error in a transition."""
        self.run.watchdog.end()
        self._outputs.stop()

    def on_input(self, name: str, stamp_ns: int) -> None:
        """Act if it is time, after the session has received a message of the input `name`."""
        run, now_ns = self.run, self._steady.now().nanoseconds
        run.monitor.received(name, now_ns)
        if name == POSE:
            self._outputs.pose_received()
        run.stamps_ns[name] = stamp_ns
        if len(run.stamps_ns) < len(self._inputs):
            return
        if not self._lockstep:
            run.stamps_ns = {}
            self._pacer.complete(now_ns)
            self._watch(now_ns)
        elif len(set(run.stamps_ns.values())) == 1:
            run.stamps_ns = {}
            run.complete_ns = stamp_ns
            self._act_in_lockstep()

    def hold(self, reason: str, stop: bool = True) -> None:
        """Publish a zero command: once per period with an order, otherwise once when the reason changes.

        Args:
            reason: Why the arm is held.
            stop: Publish the zero command; not while an operator moves the arm.
        """
        run, now_s = self.run, time.monotonic()
        period_s = 1 / self._session.spec.rate_hz
        self._authority.apply(Event.HOLD)
        held = self._authority.state is State.HOLDING and now_s - run.stopped_s >= period_s
        if stop and (reason != run.hold_reason or held):
            self._outputs.stop()
            run.stopped_s = now_s
        run.watchdog.rest()
        self._pacer.restart()
        self.status.timing.held()
        run.hold_reason = reason
        self.status.publish()

    def unlatch(self) -> None:
        """Let the next stop hold the pose that is measured then."""
        self._outputs.unlatch()

    def answer_waiting_simulator(self) -> None:
        """Act on an observation for which a simulator in lockstep waits, if there is one."""
        if self.run.complete_ns not in (None, self._answered_ns()):
            self._act_in_lockstep()

    def _answered_ns(self) -> int | None:
        """Return the stamp of the last observation that was answered."""
        return self._outputs.last.stamp_ns if self._outputs.last else None

    def _watch(self, now_ns: int | None = None) -> None:
        """Hold as soon as there is a reason, and act as soon as it is time."""
        session = self._session
        if not self._authority.may_move:
            return  # the hold has been published
        now_ns = self._steady.now().nanoseconds if now_ns is None else now_ns
        ros_ns = self._node.get_clock().now().nanoseconds
        if silence := self.run.monitor.silence(now_ns):
            session.reset()  # what follows a silence does not continue the history
            self.hold(silence)
        elif reason := self._conflict() or session.why_hold(ros_ns) or self._watchdog_reason():
            session.interrupt()
            self.hold(reason)
        elif self._pacer.due(now_ns):
            self._act(ros_ns)

    def _act_in_lockstep(self) -> None:
        stamp_ns, answered_ns = self.run.complete_ns, self._answered_ns()
        assert stamp_ns is not None  # a complete set has arrived
        if answered_ns is not None:
            if stamp_ns == answered_ns:
                if time.monotonic() - self._outputs.sent_s > RESEND_AFTER_S:  # the simulator has missed it
                    self._outputs.send_again()
                return
            if self._session.instruction and stamp_ns - answered_ns != self._session.spec.period_ns:
                self._session.set_instruction(self._session.instruction)  # a step is missing: start a new history
        if self._authority.may_move and (conflict := self._conflict()):
            self.hold(conflict)
        elif self._authority.may_move:
            self._act(stamp_ns)

    def _act(self, now_ns: int) -> None:
        """Run one control step and publish its command."""
        started_s = time.perf_counter()
        try:
            outcome = self._session.tick(now_ns)
        except Exception as error:  # a defect of ours must not leave the last command active
            self._node.get_logger().fatal(traceback.format_exc())
            self._session.fault = f"internal error, {type(error).__name__}: {error}; the log has the details"
            outcome = Hold(self._session.fault)
        ended_s = time.perf_counter()
        tripped = self._watchdog_reason()
        if tripped and not isinstance(outcome, Hold):
            self._session.interrupt()
            outcome = Hold(tripped)
        if isinstance(outcome, Hold):
            self.run.watchdog.rest()
            if self._session.fault:
                self.on_fault(self._session.fault)
            else:
                self.hold(outcome.reason)
        else:
            self._send(outcome, ended_s, ended_s - started_s)

    def _send(self, command: Command, now_s: float, duration_s: float) -> None:
        if not self._authority.apply(Event.COMMAND).accepted:
            return
        if not self._lockstep:  # there the simulator waits, so that no command can be late
            self.run.watchdog.feed()
        self._outputs.send(command)
        self._publisher.action(command, self._session.instruction, [s.stamp_ns for s in self._session.streams])
        self.status.timing.stepped(now_s, duration_s)
        self._goals.count_step()
        self.run.hold_reason = ""
        self.status.publish()

    def _watchdog_reason(self) -> str:
        """Return why to hold if the watchdog has tripped since the previous call; empty if it has not."""
        run = self.run
        tripped = run.watchdog.trips != run.handled_trips
        run.handled_trips = run.watchdog.trips
        return f"no command within {self._session.limits.command_timeout_s:g} s (command_timeout_s)" if tripped else ""

    def _supervise(self) -> None:
        silence = self.run.monitor.silence(self._steady.now().nanoseconds)
        if self._lockstep and self._session.instruction and silence:
            self.hold(silence)
        self._goals.poll(self.run.hold_reason)
        self.check_operator()

    def _diagnose(self) -> None:
        self._check_graph()
        self._publisher.diagnose()

    def _check_graph(self) -> None:
        """Look for other policies, for inputs with several sources, and for commands that nobody receives."""
        conflicts = [*other_policies(self._entities, self._outputs.topic), *duplicate_inputs(self._entities)]
        self._graph_hold = "; ".join(conflicts)
        for sources in self.part_sources:
            sources.check_graph()
        problems = [*conflicts, self._part_conflict(), *topic_problems(self._entities)]
        problems += [self._outputs.unheard(), self._outputs.servo_problem()]
        self.status.graph = "; ".join(filter(None, problems))

    def _conflict(self) -> str:
        """Return which sources contradict each other; empty if none do."""
        return self._graph_hold or self._part_conflict()

    def _part_conflict(self) -> str:
        return next((sources.conflict for sources in self.part_sources if sources.conflict), "")
