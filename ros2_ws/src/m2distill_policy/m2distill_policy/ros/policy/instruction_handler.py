"""Instructions and commands to the policy: what it follows, and when it stops, pauses and continues."""

import contextlib
import traceback
from collections.abc import Callable

from rclpy.node import Node

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_policy.control.session import PolicySession
from m2distill_policy.errors import UserError
from m2distill_policy.language.instruction_matcher import InstructionMatcher
from m2distill_policy.ros.common.background import BackgroundExecutor
from m2distill_policy.ros.common.conversions import COMPARING
from m2distill_policy.ros.policy.control_loop import ControlLoop
from m2distill_policy.ros.policy.execute_server import ExecuteServer

Result = ExecuteInstruction.Result
WAITING = "waiting for the next observation"


class InstructionHandler:
    """Decides which instruction the session follows. Methods that a service calls return what they did.

    Args:
        node: Node whose log is used.
        session: The policy.
        matcher: Comparison of unknown instructions with known ones.
        loop: Control loop, which holds the arm.
        goals: Action server whose goal other instructions end.
        background: Executor for comparisons.
        is_active: Function that returns whether the node is active.
    """

    def __init__(
        self,
        node: Node,
        session: PolicySession,
        matcher: InstructionMatcher,
        loop: ControlLoop,
        goals: ExecuteServer,
        background: BackgroundExecutor,
        is_active: Callable[[], bool],
    ):
        self._log = node.get_logger()
        self._session, self._matcher, self._loop, self._goals = session, matcher, loop, goals
        self._background, self._is_active = background, is_active
        self._matching = False  # a comparison is running in the background

    def on_instruction(self, text: str) -> None:
        """Follow an instruction from the topic; an empty one stops."""
        if not self._is_active():
            self._log.warning(f"instruction {text!r} ignored: the node is not active")
        elif not text.strip():
            self.stop()
        else:
            self._goals.finish(Result.PREEMPTED, f"preempted by the instruction {text!r}")
            with contextlib.suppress(UserError):  # follow() has published the reason on ~/status
                self.follow(text)

    def follow(self, text: str) -> None:
        """Start following an instruction with an empty history.

        A text that is not exactly a known instruction is compared with them first, while the arm is held. If none
        matches, the goal ends.

        Raises:
            UserError: The text is unknown and only exact matches are allowed; the arm is held.
        """
        known = self._session.known(text)
        if known is not None:
            self._begin(known)
        elif self._matcher.exact_only:
            try:
                self._session.set_instruction(text)
            except UserError as error:
                self._reject(str(error))
                raise
        else:
            self.halt(f"{COMPARING} {text!r} with the known instructions")
            self._loop.run.pending_text = text
            if not self._matching:
                self._match(text)

    def start_again(self) -> str:
        """Follow the last instruction again."""
        last = self._loop.run.last_instruction
        if not last:
            raise UserError("no instruction yet; send one on the topic `instruction`")
        self.follow(last)
        return f"following {self._loop.run.last_instruction!r}"

    def stop(self) -> str:
        self._goals.finish(Result.STOPPED, "stopped")
        self.halt("stopped")
        return "stopped"

    def pause(self) -> str:
        if not self._session.instruction:
            raise UserError("cannot pause: no instruction is being followed")
        self._pause("paused")
        return "paused; call ~/start to continue"

    def yield_to_operator(self) -> None:
        """Stop while an operator moves the arm, until ~/start or an instruction."""
        if not self._is_active():
            return
        if self._loop.run.pending_text is not None:  # its comparison must not start a motion during teleoperation
            self.stop()
        if self._session.instruction:
            self._pause("the operator has taken over; call ~/start to continue")

    def reset_fault(self) -> str:
        fault = self._session.fault
        self._session.reset_fault()
        self._loop.hold(WAITING if self._session.instruction else "no instruction")
        return f"cleared: {fault}" if fault else "there was no fault"

    def succeed(self) -> None:
        """End the goal with success, after a message on the success topic; without a goal do nothing."""
        if self._is_active():
            self._goals.succeed()

    def halt(self, reason: str) -> str:
        """Stop following any instruction and hold; return the timing of the run."""
        run = self._loop.run
        run.pending_text = None
        summary = self._loop.status.summarize()
        self._session.stop()
        run.paused = False
        self._loop.hold(reason)
        return summary

    def _begin(self, known: str) -> None:
        run = self._loop.run
        run.pending_text = None
        self._loop.status.summarize()
        self._session.set_instruction(known)
        run.last_instruction = known
        run.paused = False
        self._loop.hold(WAITING)
        self._loop.answer_waiting_simulator()

    def _pause(self, reason: str) -> None:
        self._session.stop()
        self._loop.run.paused = True
        self._loop.hold(reason)

    def _reject(self, reason: str) -> None:
        self.halt(reason)
        self._log.warning(reason)

    def _match(self, text: str) -> None:
        """Compare one text at a time; of those that arrive meanwhile only the last one counts."""
        self._matching, instructions = True, self._session.instructions
        self._background.run(
            lambda: self._matcher.match(text, instructions), lambda known, error: self._matched(text, known, error)
        )

    def _matched(self, text: str, known: str | None, error: Exception | None) -> None:
        self._matching = False
        pending = self._loop.run.pending_text
        if text != pending:  # another instruction or a stop has arrived meanwhile
            if pending is not None:
                self._match(pending)
            return
        if known is not None and self._session.known(known):
            self._begin(known)
            return
        if known is not None:
            error = UserError(
                f"{text!r} matches {known!r}, which the checkpoint that was swapped in meanwhile does not know; known: "
                f"{'; '.join(self._session.instructions)}"
            )
        if error is not None and not isinstance(error, UserError):
            self._log.fatal("".join(traceback.format_exception(error)))
        self._reject(str(error))
        self._goals.finish(Result.REFUSED, str(error))
