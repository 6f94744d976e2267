"""What an active node does: it follows an instruction, holds, pauses, and answers observations with commands.

Pacing `real_time` acts at the spec's rate, in step with the inputs (pacer.py), and looks every few milliseconds whether
it may go on. Pacing `lockstep` acts once for each complete set of inputs with one stamp, and answers a repeated set
with the same command, so a simulator may wait for it.
"""

import contextlib
import time
import traceback

from rclpy.node import Node

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.action import Hold
from m2distill_policy.control.pacer import Pacer
from m2distill_policy.control.session import POSE, PolicySession
from m2distill_policy.control.timing_stats import TimingStats
from m2distill_policy.errors import UserError
from m2distill_policy.language.instruction_matcher import InstructionMatcher
from m2distill_policy.ros.common import topic_checks
from m2distill_policy.ros.common.background import BackgroundExecutor
from m2distill_policy.ros.common.conversions import COMPARING
from m2distill_policy.ros.common.diagnostics import InputMonitor
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.policy.execute_server import ExecuteServer
from m2distill_policy.ros.policy.outputs import Outputs
from m2distill_policy.ros.policy.parameters import PolicyParameters
from m2distill_policy.ros.policy.status_publisher import StatusPublisher
from m2distill_policy.ros.policy.watchdog import Watchdog

Ended = ExecuteInstruction.Result
WATCH_PERIOD_S = 0.01
SUPERVISION_PERIOD_S = 0.05
DIAGNOSTICS_PERIOD_S = 1.0
RESEND_AFTER_S = 0.4  # lockstep: an observation repeated sooner has crossed with its answer


class PolicyController:
    def __init__(
        self,
        entities: ManagedEntities,
        session: PolicySession,
        settings: PolicyParameters,
        outputs: Outputs,
        report: StatusPublisher,
        background: BackgroundExecutor,
    ):
        self._node: Node = entities.node
        self._made, self._steady = entities, entities.steady
        self._session, self._outputs, self._report, self._background = session, outputs, report, background
        self.active = False
        self._inputs = [stream.name for stream in session.streams]
        self._matcher = InstructionMatcher(settings.min_similarity)
        self._execute = ExecuteServer(self._node, lambda: self.active, self.follow, self._halt)
        entities.at_destruction(self._execute.destroy)
        entities.at_destruction(self._abandon)
        self._lockstep = settings.pacing == "lockstep"
        self._pacer = Pacer(session.spec.period_ns)
        self._cadence = TimingStats(1 / session.spec.rate_hz)
        self._last_run = ""  # summary
        self._judging = False  # in the background, whether its outcome is still wanted or not
        report.numbers = self._numbers
        if not self._lockstep:
            entities.timer(WATCH_PERIOD_S, self._watch)
        entities.timer(SUPERVISION_PERIOD_S, self._supervise)
        entities.timer(DIAGNOSTICS_PERIOD_S, report.diagnose)

    def start(self) -> None:
        limits = self._session.limits
        self._monitor = InputMonitor(self._inputs, round(limits.watchdog_s * 1e9))
        self._watchdog = Watchdog(limits.command_timeout_s, self._outputs.stop)
        self._bites = 0
        self._session.stop()  # whatever was said before: an activation moves nothing
        self._session.reset()
        self._outputs.forget()
        self._stamps: dict[str, int] = {}  # of the inputs heard since the last complete set
        self._complete_ns: int | None = None  # lockstep: stamp of the last complete set
        self._hold_reason = self._last_instruction = ""
        self._stopped_s = 0.0  # when the last zero command was sent
        self._question: str | None = None  # the instruction that is to be judged
        self._paused = False
        self.active = True
        self._hold("no instruction")

    def end(self) -> None:
        """The zero command is the last thing sent."""
        self._execute.finish(Ended.DEACTIVATED, "the node was deactivated")
        self._watchdog.end()
        self._question = None
        self._session.stop()
        self._sum_up()
        self._hold_reason = "not active"
        self._tell_status()
        self._outputs.stop()
        self._outputs.flush()
        self.active = False

    def _abandon(self) -> None:
        """After an error in a transition: no orderly end, but no motion and no thread left either."""
        if self.active:
            self.active = False
            self._watchdog.end()
            self._outputs.stop()

    # --- what it is told to do; each verb returns what it did

    def instruct(self, text: str) -> None:
        """An instruction from the topic. Empty: stop."""
        if not self.active:
            self._node.get_logger().warning(f"instruction {text!r} passed over: the node is not active")
        elif not text.strip():
            self.stop()
        else:
            self._execute.finish(Ended.PREEMPTED, f"preempted by the instruction {text!r}")
            with contextlib.suppress(UserError):  # told on ~/status by follow
                self.follow(text)

    def follow(self, text: str) -> None:
        """Start on an instruction with an empty history. One that is not known word for word is judged first, while the
        arm is held; refused, it ends the goal. Raises UserError, holding, when it cannot be judged."""
        known = self._session.known(text)
        if known is not None:
            self._begin(known)
        elif self._matcher.exact_only:
            try:
                self._session.set_instruction(text)
            except UserError as error:
                self._refuse(str(error))
                raise
        else:
            self._halt(f"{COMPARING} {text!r} with the known instructions")
            self._question = text
            if not self._judging:
                self._judge(text)

    def _judge(self, text: str) -> None:
        """One text at a time, however many are sent: of those that come meanwhile only the last is wanted."""
        self._judging, instructions = True, self._session.instructions
        self._background.run(
            lambda: self._matcher.match(text, instructions), lambda known, error: self._judged(text, known, error)
        )

    def _judged(self, text: str, known: str | None, error: Exception | None) -> None:
        self._judging = False
        if text != self._question:  # something else has been said in the meantime
            if self._question is not None:
                self._judge(self._question)
            return
        if known is not None and self._session.known(known):
            self._begin(known)
            return
        if known is not None:
            error = UserError(
                f"{known!r} was meant, but another checkpoint was swapped in meanwhile and does not know "
                f"it; known: {'; '.join(self._session.instructions)}"
            )
        if error is not None and not isinstance(error, UserError):
            self._node.get_logger().fatal("".join(traceback.format_exception(error)))
        self._refuse(str(error))
        self._execute.finish(Ended.REFUSED, str(error))

    def _refuse(self, why: str) -> None:
        self._halt(why)
        self._node.get_logger().warning(why)

    def _begin(self, known: str) -> None:
        self._question = None
        self._sum_up()
        self._session.set_instruction(known)
        self._last_instruction = known
        self._paused = False
        self._hold("waiting for the next observation")
        answered_ns = self._outputs.last.stamp_ns if self._outputs.last else None
        if self._complete_ns not in (None, answered_ns):  # lockstep: the simulator already waits
            self._act_in_lockstep()

    def start_again(self) -> str:
        if not self._last_instruction:
            raise UserError("no instruction yet; send one on the topic `instruction`")
        self.follow(self._last_instruction)
        return f"following {self._last_instruction!r}"

    def stop(self) -> str:
        self._execute.finish(Ended.STOPPED, "stopped")
        self._halt("stopped")
        return "stopped"

    def pause(self) -> str:
        if not self._session.instruction:
            raise UserError("nothing to pause: no instruction is followed")
        self._pause("paused")
        return "paused; ~/start goes on"

    def yield_to_operator(self) -> None:
        """An operator moves the arm: hands off until ~/start or an instruction."""
        if not self.active:
            return
        if self._question is not None:  # an instruction that is still being compared must not begin under his hands
            self.stop()
        if self._session.instruction:
            self._pause("the operator has taken over; ~/start goes on")

    def _pause(self, why: str) -> None:
        self._session.stop()
        self._paused = True
        self._hold(why)

    def reset_fault(self) -> str:
        fault = self._session.fault
        self._session.reset_fault()
        self._hold("waiting for the next observation" if self._session.instruction else "no instruction")
        return f"cleared: {fault}" if fault else "there was no fault"

    def succeed(self) -> None:
        """The success topic has spoken: it ends a goal, and nothing else."""
        if self.active:
            self._execute.succeed()

    def _halt(self, notice: str) -> str:
        """Returns how the run went."""
        self._question = None
        summary = self._sum_up()
        self._session.stop()
        self._paused = False
        self._hold(notice)
        return summary

    def _sum_up(self) -> str:
        """The end of a run: tell how regularly it acted."""
        summary = self._cadence.summary()
        if summary:
            self._last_run = summary
            self._node.get_logger().info(f"run of {self._last_instruction!r}: {summary}")
        self._cadence.restart()
        return summary

    # --- control

    def heard(self, name: str, stamp_ns: int) -> None:
        """The session has taken a message of this input."""
        now_ns = self._steady.now().nanoseconds
        self._monitor.heard(name, now_ns)
        if name == POSE:
            self._outputs.heard_pose()
        self._stamps[name] = stamp_ns
        if len(self._stamps) < len(self._inputs):
            return
        if not self._lockstep:
            self._stamps = {}
            self._pacer.complete(now_ns)
            self._watch(now_ns)
        elif len(set(self._stamps.values())) == 1:
            self._stamps = {}
            self._complete_ns = stamp_ns
            self._act_in_lockstep()

    def _watch(self, now_ns: int | None = None) -> None:
        """Hold as soon as there is a reason, act as soon as it is time."""
        session = self._session
        if not session.instruction:
            return  # idle or paused: the reason is told already
        now_ns = self._steady.now().nanoseconds if now_ns is None else now_ns
        ros_ns = self._node.get_clock().now().nanoseconds
        if silence := self._monitor.silence(now_ns):
            session.reset()  # what comes after it is not a continuation
            self._hold(silence)
        elif reason := session.why_hold(ros_ns) or self._why_bitten():
            session.interrupt()
            self._hold(reason)
        elif self._pacer.due(now_ns):
            self._act(ros_ns)

    def _act_in_lockstep(self) -> None:
        stamp_ns, last = self._complete_ns, self._outputs.last
        assert stamp_ns is not None  # a complete set has come
        if last is not None:
            if stamp_ns == last.stamp_ns:
                if time.monotonic() - self._outputs.sent_s > RESEND_AFTER_S:  # the simulator missed it
                    self._outputs.send_again()
                return
            if self._session.instruction and stamp_ns - last.stamp_ns != self._session.spec.period_ns:
                self._session.set_instruction(self._session.instruction)  # a step is missing: begin a new history
        if self._session.instruction:
            self._act(stamp_ns)

    def _act(self, now_ns: int) -> None:
        started_s = time.perf_counter()
        try:
            outcome = self._session.tick(now_ns)
        except Exception as error:  # a defect of ours must not leave the last command standing
            self._node.get_logger().fatal(traceback.format_exc())
            self._session.fault = f"internal error, {type(error).__name__}: {error}; the log has the details"
            outcome = Hold(self._session.fault)
        ended_s = time.perf_counter()
        bitten = self._why_bitten()
        if bitten and not isinstance(outcome, Hold):
            self._session.interrupt()
            outcome = Hold(bitten)
        if isinstance(outcome, Hold):
            self._hold(outcome.reason)
            if self._session.fault:
                self._execute.finish(Ended.FAULT, self._session.fault)
            return
        if not self._lockstep:  # where the simulator waits
            self._watchdog.feed()
        self._outputs.send(outcome)
        self._report.action(outcome, self._session.instruction, [s.stamp_ns for s in self._session.streams])
        self._cadence.stepped(ended_s, ended_s - started_s)
        self._execute.count_step()
        self._hold_reason = ""
        self._tell_status()

    def _why_bitten(self) -> str:
        """Whether the watchdog has bitten since this was asked last."""
        news = self._watchdog.bites != self._bites
        self._bites = self._watchdog.bites
        return f"no command within {self._session.limits.command_timeout_s:g} s (command_timeout_s)" if news else ""

    def _hold(self, reason: str) -> None:
        """A zero command: once per period while there is an instruction, else once, when the reason changes."""
        now_s = time.monotonic()
        period_s = 1 / self._session.spec.rate_hz
        if reason != self._hold_reason or (self._session.instruction and now_s - self._stopped_s >= period_s):
            self._outputs.stop()
            self._stopped_s = now_s
        self._watchdog.rest()
        self._pacer.restart()
        self._cadence.held()
        self._hold_reason = reason
        self._tell_status()

    def _supervise(self) -> None:
        silence = self._monitor.silence(self._steady.now().nanoseconds)
        if self._lockstep and self._session.instruction and silence:
            self._hold(silence)
        self._execute.poll(self._hold_reason)

    # --- what is told

    def _tell_status(self) -> None:
        session = self._session
        if session.fault:
            state = PolicyStatus.FAULT
        elif self._paused:
            state = PolicyStatus.PAUSED
        elif not session.instruction:
            state = PolicyStatus.IDLE
        else:
            state = PolicyStatus.HOLDING if self._hold_reason else PolicyStatus.RUNNING
        self._report.status(
            state=state,
            reason=session.fault or self._hold_reason,
            instruction=self._last_instruction if self._paused else session.instruction,
        )

    def _numbers(self) -> dict[str, str]:
        streams = [stream for stream in self._session.streams if stream.value is not None]
        newest_ns = max((stream.stamp_ns for stream in streams), default=0)
        now_ns = self._node.get_clock().now().nanoseconds
        numbers = {
            f"{name} (Hz)": f"{rate:.1f}"
            for name, rate in self._monitor.rates_hz(self._steady.now().nanoseconds).items()
        }
        for stream in streams:
            numbers[f"{stream.name} age (ms)"] = f"{(now_ns - stream.stamp_ns) / 1e6:.0f}"
            numbers[f"{stream.name} behind the newest (ms)"] = f"{(newest_ns - stream.stamp_ns) / 1e6:.0f}"
        return {
            **numbers,
            **self._cadence.numbers(),
            "watchdog bites": str(self._watchdog.bites),
            "last run": self._last_run,
            "topics": "; ".join(topic_checks.problems(self._made)),
        }
