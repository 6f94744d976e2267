"""Instructions and commands to the policy. `safety/authority.py` decides; here its decisions take effect."""

import time
import traceback
from collections.abc import Callable

from rclpy.node import Node
from rclpy.task import Future

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_policy.control.session import PolicySession
from m2distill_policy.errors import UserError
from m2distill_policy.language.instruction_matcher import InstructionMatcher
from m2distill_policy.ros.common.background import BackgroundExecutor
from m2distill_policy.ros.common.conversions import COMPARING
from m2distill_policy.ros.common.process import REPEAT_LOG_S
from m2distill_policy.ros.policy.control_loop import ControlLoop
from m2distill_policy.ros.policy.execute_server import ExecuteServer
from m2distill_policy.ros.policy.run_status import STATES
from m2distill_policy.safety.authority import Authority, Decision, Event, Order, State

Result = ExecuteInstruction.Result
WAITING = "waiting for the next observation"
ENDED = {Event.STOP: Result.STOPPED, Event.FAULT: Result.FAULT, Event.DEACTIVATE: Result.DEACTIVATED}


class InstructionHandler:
    """Applies the decisions to the session, the control loop and the goals. Methods for services return what they did.

    Args:
        node: Node whose log is used.
        authority: Who may move the arm.
        session: The policy.
        matcher: Comparison of unknown instructions with known ones.
        loop: Control loop, which holds the arm.
        goals: Action server whose goal other events end.
        background: Executor for comparisons.
        is_active: Function that returns whether the node is active.
    """

    def __init__(
        self,
        node: Node,
        authority: Authority,
        session: PolicySession,
        matcher: InstructionMatcher,
        loop: ControlLoop,
        goals: ExecuteServer,
        background: BackgroundExecutor,
        is_active: Callable[[], bool],
    ):
        self._log, self._authority = node.get_logger(), authority
        self._session, self._matcher, self._loop, self._goals = session, matcher, loop, goals
        self._background, self._is_active = background, is_active
        self._matching = False  # a comparison is running in the background
        self._answers: list[tuple[Order, Future]] = []  # to requests whose text is being compared
        self._operator_s = 0.0  # when the operator was last active, by the steady clock

    @property
    def state(self) -> int:
        """State as PolicyStatus numbers it."""
        return STATES[self._authority.state]

    @property
    def followed(self) -> str:
        """Instruction that is followed; empty if there is none."""
        order = self._authority.order
        return order.known if order and self._authority.may_move else ""

    # --- instructions, goals and commands

    def on_instruction(self, text: str) -> None:
        """Handle a message on the topic; an empty one stops."""
        if not self._is_active():
            self._log.warning(f"instruction {_short(text)} ignored: the node is not active")
        elif not text.strip():
            self.stop()
        else:
            decision = self._authority.instruct(text, self._session.known(text) or "", on_topic=True)
            if not decision.accepted:
                line = f"instruction {_short(text)} on the topic ignored: {decision.message}"
                self._log.warning(line, throttle_duration_sec=REPEAT_LOG_S)
            self._apply(decision)

    def request(self, text: str) -> Future:
        """Handle an instruction of ~/command; the result of the future is (accepted, message)."""
        answer = Future()
        if not text.strip():
            answer.set_result((False, "the instruction is empty; STOP stops"))
            return answer
        decision = self._authority.instruct(text, self._session.known(text) or "", on_topic=False)
        order = self._authority.order
        if decision.accepted and order is not None:
            self._answers.append((order, answer))
        else:
            answer.set_result((False, decision.message))
        self._apply(decision)
        return answer

    def execute(self, text: str) -> None:
        """Follow the instruction of a goal that was accepted."""
        decision = self._authority.execute(text, self._session.known(text) or "")
        if not decision.accepted:  # since its acceptance
            self._goals.finish(Result.REFUSED, decision.message)
        self._apply(decision)

    def start_again(self) -> str:
        """Continue after a pause or an operator, or follow the last instruction again."""
        return self._do(self._authority.start(self._session.known(self._authority.last_text) or ""))

    def stop(self) -> str:
        return self._do(self._authority.apply(Event.STOP))

    def pause(self) -> str:
        return self._do(self._authority.apply(Event.PAUSE))

    def reset_fault(self) -> str:
        self._session.reset_fault()
        return self._do(self._authority.apply(Event.RESET))

    def fault(self, reason: str) -> None:
        """Latch a fault: it ends the instruction and the goal."""
        self._apply(self._authority.latch(reason))

    def succeed(self) -> None:
        """End the goal with success, after a message on the success topic; without a goal do nothing."""
        if self._is_active():
            self._goals.succeed()

    def end_goal(self, event: Event, reason: str) -> str:
        """End the goal, which the caller finishes; return the timing of the run."""
        summary = self._loop.status.summarize()
        self._apply(self._authority.apply(event), reason)
        return summary

    def deactivate(self) -> None:
        """End everything before the node leaves the active state."""
        self._apply(self._authority.apply(Event.DEACTIVATE), "not active")

    # --- the operator

    def on_operator(self, active: bool) -> None:
        """Handle `operator_active`, also while the node is inactive."""
        self._operator_s = time.monotonic()
        self._apply(self._authority.apply(Event.TAKEOVER if active else Event.RELEASE))

    def check_operator(self, timeout_s: float) -> None:
        """Notice the silence of an operator who has the arm."""
        if self._authority.state is State.OPERATOR and time.monotonic() - self._operator_s > timeout_s:
            self._apply(self._authority.apply(Event.SILENCE))

    # --- effects

    def _do(self, decision: Decision) -> str:
        """Apply a decision and return its message. Raises UserError if it is a rejection."""
        self._apply(decision)
        if not decision.accepted:
            raise UserError(decision.message)
        if decision.message in ("following", "already following"):
            return f"{decision.message} {self._authority.last_text!r}"
        return decision.message

    def _apply(self, decision: Decision, reason: str = "") -> None:
        """Let a decision take effect on the session, the arm, the goals and the requests."""
        if not decision.accepted:
            return
        event, ended, began = decision.event, decision.ended, decision.began
        if event is Event.FAULT:
            reason = self._authority.fault
        if began is None and ended is None and decision.before is decision.after and event is not Event.STOP:
            return
        if self._is_active():
            self._loop.status.summarize()
        if ended is not None and ended.is_goal and event in ENDED:
            self._goals.finish(ENDED[event], reason or decision.message)
        if self._authority.may_move:
            self._session.set_instruction(self.followed)
        else:
            self._session.stop()
        if self._is_active():
            self._hold(decision, reason)
        self._answer(decision)
        if began is not None:
            self._resolve(began)

    def _hold(self, decision: Decision, reason: str) -> None:
        """Hold the arm, unless an operator has it and the policy has not moved it."""
        before, after = decision.before, decision.after
        if State.OPERATOR in (before, after) or before in (State.IDLE, State.PAUSED, State.SILENT):
            self._loop.unlatch()  # others may have moved the arm
        reason = reason or ("" if decision.began else decision.message) or "no instruction"
        moved = before in (State.HOLDING, State.RUNNING)
        theirs = after in (State.OPERATOR, State.SILENT) or before is State.OPERATOR
        self._loop.hold(WAITING if decision.began else reason, stop=moved or not theirs)

    def _answer(self, decision: Decision) -> None:
        """Answer the requests whose order has ended, or is known by now."""
        waiting, self._answers = self._answers, []
        for order, answer in waiting:
            if order is not self._authority.order:
                answer.set_result((False, decision.message or f"ended by {decision.event.name.lower()}"))
            elif order.known:
                answer.set_result((True, f"following {order.known!r}"))
            else:
                self._answers.append((order, answer))

    def _resolve(self, order: Order) -> None:
        """Begin an order whose instruction is known, reject it, or compare its text with the known ones."""
        if order.known:
            self._loop.answer_waiting_simulator()
        elif self._matcher.exact_only:
            self._reject(f"unknown instruction {_short(order.text)}; known: {'; '.join(self._session.instructions)}")
        else:
            self._loop.hold(f"{COMPARING} {_short(order.text)} with the known instructions")
            if not self._matching:
                self._match(order)

    def _reject(self, reason: str) -> None:
        """End the order, because its text is not known."""
        order = self._authority.order
        assert order is not None
        self._log.warning(reason)
        for waiting, answer in self._answers:
            if waiting is order:
                answer.set_result((False, reason))
        self._answers = [(waiting, answer) for waiting, answer in self._answers if waiting is not order]
        self._apply(self._authority.apply(Event.UNKNOWN), reason)
        if order.is_goal:
            self._goals.finish(Result.REFUSED, reason)

    def _match(self, order: Order) -> None:
        """Compare one text at a time; of those that arrive meanwhile only the last one counts."""
        self._matching, instructions = True, self._session.instructions
        self._background.run(
            lambda: self._matcher.match(order.text, instructions),
            lambda known, error: self._matched(order, known, error),
        )

    def _matched(self, order: Order, known: str | None, error: Exception | None) -> None:
        self._matching = False
        present = self._authority.order
        if present is not order:  # another order or a stop has arrived meanwhile
            if present is not None and not present.known:
                self._match(present)
            return
        if known is not None and self._session.known(known):
            self._authority.matched(known)
            if self._authority.may_move:
                self._session.set_instruction(known)
                self._loop.hold(WAITING)
                self._loop.answer_waiting_simulator()
            self._answer(Decision(Event.INSTRUCTION, self._authority.state, self._authority.state, True, ""))
            return
        if known is not None:
            error = UserError(
                f"{_short(order.text)} matches {known!r}, which the checkpoint that was swapped in meanwhile does not "
                f"know; known: {'; '.join(self._session.instructions)}"
            )
        if error is not None and not isinstance(error, UserError):
            self._log.fatal("".join(traceback.format_exception(error)))
        self._reject(str(error))


def _short(text: str) -> str:
    """Return the text in quotes, cut if it is long."""
    return repr(text if len(text) <= 200 else f"{text[:200]}...")
