"""What an active node does: it follows an instruction, holds, pauses, and answers observations with commands.

Pacing `real_time` acts at the spec's rate by the steady clock. Pacing `lockstep` acts once for each complete set of
inputs with one stamp, and answers a repeated set with the same command, so a simulator may wait for it.
"""

import contextlib
import time
import traceback

from rclpy.node import Node

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.action import Hold
from m2distill_policy.errors import UserError
from m2distill_policy.ros.diagnostics import InputMonitor
from m2distill_policy.ros.execute import ExecuteServer
from m2distill_policy.ros.made import Made
from m2distill_policy.ros.outputs import Outputs
from m2distill_policy.ros.policy_parameters import PolicyParameters
from m2distill_policy.ros.report import DIAGNOSTICS_PERIOD_S, Report
from m2distill_policy.session import PolicySession

Ended = ExecuteInstruction.Result
SUPERVISION_PERIOD_S = 0.05
RESEND_AFTER_S = 0.4  # lockstep: an observation repeated sooner has crossed with its answer


class Runner:
    def __init__(self, made: Made, session: PolicySession, settings: PolicyParameters, outputs: Outputs,
                 report: Report):
        self._node: Node = made.node
        self._steady = made.steady
        self._session, self._settings = session, settings
        self._outputs, self._report = outputs, report
        self.active = False
        self._inputs = [stream.name for stream in session.streams]
        self._execute = ExecuteServer(self._node, lambda: self.active, self.follow, self._halt)
        made.at_destruction(self._execute.destroy)
        self._lockstep = settings.pacing == "lockstep"
        if not self._lockstep:
            made.timer(session.spec.period_ns * 1e-9, self._act_by_the_clock)
        made.timer(SUPERVISION_PERIOD_S, self._supervise)
        made.timer(DIAGNOSTICS_PERIOD_S, lambda: report.diagnose(self._monitor))

    def start(self) -> None:
        self._monitor = InputMonitor(self._inputs, round(self._settings.watchdog_s * 1e9))
        self._session.reset()
        self._outputs.forget()
        self._stamps: dict[str, int] = {}  # lockstep: of the inputs heard since the last complete set
        self._complete_ns: int | None = None  # lockstep: stamp of the last complete set
        self._hold_reason = self._last_instruction = ""
        self._paused = False
        self.active = True
        self._hold("no instruction")

    def end(self) -> None:
        """The zero command is the last thing sent."""
        self._execute.finish(Ended.DEACTIVATED, "the node was deactivated")
        self._session.stop()
        self._hold_reason = "not active"
        self._tell_status()
        self._outputs.stop()
        self._outputs.flush()
        self.active = False

    # --- what it is told to do; each verb returns what it did

    def instruct(self, text: str) -> None:
        """An instruction from the topic. Empty: stop."""
        if not self.active:
            self._node.get_logger().warning(f"instruction {text!r} passed over: the node is not active")
        elif not text.strip():
            self.stop()
        else:
            self._execute.finish(Ended.SUPERSEDED, f"superseded by the instruction {text!r}")
            with contextlib.suppress(UserError):  # told on ~/status by follow
                self.follow(text)

    def follow(self, instruction: str) -> None:
        """Start on an instruction with an empty history. Raises UserError, holding, when it is not known."""
        try:
            self._session.set_instruction(instruction)
        except UserError as error:
            self._halt(str(error))
            self._node.get_logger().warning(str(error))
            raise
        self._last_instruction = self._session.instruction
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
        self._session.stop()
        self._paused = True
        self._hold("paused")
        return "paused; ~/start goes on"

    def reset_fault(self) -> str:
        fault = self._session.fault
        self._session.reset_fault()
        self._hold("waiting for the next observation" if self._session.instruction else "no instruction")
        return f"cleared: {fault}" if fault else "there was no fault"

    def _halt(self, notice: str) -> None:
        self._session.stop()
        self._paused = False
        self._hold(notice)

    # --- control

    def heard(self, name: str, stamp_ns: int) -> None:
        """The session has taken a message of this input."""
        self._monitor.heard(name, self._steady.now().nanoseconds)
        if self._lockstep:
            self._stamps[name] = stamp_ns
            if len(self._stamps) == len(self._inputs) and len(set(self._stamps.values())) == 1:
                self._stamps = {}
                self._complete_ns = stamp_ns
                self._act_in_lockstep()

    def _act_by_the_clock(self) -> None:
        silence = self._monitor.silence(self._steady.now().nanoseconds)
        if self._session.instruction and silence:
            self._session.reset()  # what comes after it is not a continuation
            self._hold(silence)
        else:
            self._act(self._node.get_clock().now().nanoseconds)

    def _act_in_lockstep(self) -> None:
        stamp_ns, last = self._complete_ns, self._outputs.last
        if last is not None:
            if stamp_ns == last.stamp_ns:
                if time.monotonic() - self._outputs.sent_s > RESEND_AFTER_S:  # the simulator missed it
                    self._outputs.send_again()
                return
            if self._session.instruction and stamp_ns - last.stamp_ns != self._session.spec.period_ns:
                self._session.set_instruction(self._session.instruction)  # a step is missing: begin a new history
        self._act(stamp_ns)

    def _act(self, now_ns: int) -> None:
        if not self._session.instruction and not self._session.fault:
            return  # idle or paused: the reason is told already
        started_s = time.perf_counter()
        try:
            outcome = self._session.tick(now_ns)
        except Exception:  # a defect of ours must not leave the last command standing
            self._node.get_logger().fatal(traceback.format_exc())
            self._session.fault = "internal error; the log has the details"
            outcome = Hold(self._session.fault)
        if isinstance(outcome, Hold):
            self._hold(outcome.reason)
            if self._session.fault:
                self._execute.finish(Ended.FAULT, self._session.fault)
            return
        self._monitor.stepped(time.perf_counter() - started_s)
        self._execute.count_step()
        self._report.action(outcome, self._session.instruction)
        self._outputs.send(outcome)
        self._hold_reason = ""
        self._tell_status()

    def _hold(self, reason: str) -> None:
        """A zero twist: at every step while there is an instruction, else once, when the reason changes."""
        if self._session.instruction or reason != self._hold_reason:
            self._outputs.stop()
        self._hold_reason = reason
        self._tell_status()

    def _supervise(self) -> None:
        silence = self._monitor.silence(self._steady.now().nanoseconds)
        if self._lockstep and self._session.instruction and silence:
            self._hold(silence)
        self._execute.poll(self._hold_reason)

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
        self._report.status(state, session.fault or self._hold_reason,
                            self._last_instruction if self._paused else session.instruction)
