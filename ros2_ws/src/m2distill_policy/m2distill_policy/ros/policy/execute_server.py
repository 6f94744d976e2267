"""Action server `~/execute`: one goal at a time follows one instruction for a limited time."""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from builtin_interfaces.msg import Duration
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from rclpy.task import Future

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_policy.bringup.parameters import PolicyParameters
from m2distill_policy.safety.authority import Event

Result: TypeAlias = ExecuteInstruction.Result
FEEDBACK_PERIOD_S = 0.5
RESULT_TIMEOUT_S = 900  # time for which the result of a goal that has ended can be requested
REASONS = {Event.SUCCESS: Result.SUCCESS, Event.TIME_LIMIT: Result.TIME_LIMIT, Event.CANCEL: Result.CANCELED}


class ExecuteServer:
    """Runs the goals of the policy node.

    The node calls `count_step` for each command, `finish` for every event that ends a goal, and `poll` regularly.

    Args:
        node: The policy node.
        settings: Parameters of the node.
        why_rejected: Function that returns why a goal is rejected now; empty if it is accepted.
        begin: Function that starts following a goal's instruction. It calls `finish` if it cannot.
        end: Function that ends the goal for SUCCESS, TIME_LIMIT or CANCEL, holds the arm for a reason and returns the
            timing of the run.
        on_rejection: Function that is called with a line about each rejected goal, because ROS 2's answer has no text.
    """

    def __init__(
        self,
        node: Node,
        settings: PolicyParameters,
        why_rejected: Callable[[], str],
        begin: Callable[[str], None],
        end: Callable[[Event, str], str],
        on_rejection: Callable[[str], None],
    ):
        self._log, self._settings = node.get_logger(), settings
        self._why_rejected, self._begin, self._end, self._on_rejection = why_rejected, begin, end, on_rejection
        self._goal: ServerGoalHandle | None = None
        self._outcome = Future()  # (termination reason, message) of the running goal
        self._accepted_s = self._feedback_s = 0.0
        self._started_s: float | None = None  # when it has moved the arm first
        self._steps = 0
        self._server = ActionServer(
            node,
            ExecuteInstruction,
            "~/execute",
            self._execute,
            goal_callback=self._check_goal,
            handle_accepted_callback=self._start,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            result_timeout=RESULT_TIMEOUT_S,
        )

    def destroy(self) -> None:
        self._server.destroy()

    def count_step(self) -> None:
        if self._started_s is None:
            self._started_s = time.monotonic()
        self._steps += 1

    def succeed(self) -> None:
        """End the running goal with success."""
        if self._goal is not None:
            self._conclude(Event.SUCCESS, "success")

    def finish(self, reason: int, message: str) -> None:
        """End the running goal, if any. The caller holds the arm."""
        if self._goal is not None:
            self._goal = None
            self._outcome.set_result((reason, message))

    def poll(self, hold_reason: str) -> None:
        """Publish feedback, and end the goal if it is cancelled or its time limit is reached."""
        if self._goal is None:
            return
        now_s = time.monotonic()
        if self._goal.is_cancel_requested:
            self._conclude(Event.CANCEL, "cancelled")
        elif self._started_s is None and now_s - self._accepted_s >= self._settings.goal_start_timeout_s:
            waited = f"no motion within {self._settings.goal_start_timeout_s:g} s (goal_start_timeout_s)"
            self._conclude(Event.TIME_LIMIT, f"{waited}: {hold_reason}")
        elif self._elapsed_s() >= _seconds(self._goal.request.time_limit):
            self._conclude(Event.TIME_LIMIT, "time limit reached")
        elif now_s - self._feedback_s >= FEEDBACK_PERIOD_S:
            self._feedback_s, elapsed_s = now_s, self._elapsed_s()
            self._goal.publish_feedback(
                ExecuteInstruction.Feedback(
                    elapsed=Duration(sec=int(elapsed_s), nanosec=int(elapsed_s % 1 * 1e9)),
                    steps=self._steps,
                    hold_reason=hold_reason,
                )
            )

    def _elapsed_s(self) -> float:
        """Return the time since the first motion, or 0."""
        return 0.0 if self._started_s is None else time.monotonic() - self._started_s

    def _conclude(self, event: Event, what: str) -> None:
        elapsed_s = self._elapsed_s()
        summary = self._end(event, what)
        line = f"{what} after {elapsed_s:.1f} s and {self._steps} steps; {summary}".rstrip("; ")
        self.finish(REASONS[event], line)

    def _check_goal(self, request: ExecuteInstruction.Goal) -> GoalResponse:
        limit_s = _seconds(request.time_limit)
        reason = self._why_rejected() or (f"time_limit is {limit_s} s, expected above 0" if limit_s <= 0 else "")
        if not reason:
            return GoalResponse.ACCEPT
        self._on_rejection(f"goal {request.instruction!r} rejected: {reason}")
        return GoalResponse.REJECT

    def _start(self, goal: ServerGoalHandle) -> None:
        """Start the goal within its acceptance, so that a stop that arrives later ends it.

        rclpy executes a goal after everything that has arrived by then, so `_execute` only awaits the outcome.
        """
        self.finish(Result.PREEMPTED, f"preempted by the goal {goal.request.instruction!r}")
        outcome = Future()
        self._goal, self._outcome, self._steps, self._started_s = goal, outcome, 0, None
        self._accepted_s = self._feedback_s = time.monotonic()
        self._begin(goal.request.instruction)
        goal.execute(partial(self._execute, outcome))

    async def _execute(self, outcome: Future, goal: ServerGoalHandle) -> Result:
        reason, message = await outcome
        moved = self._settings.time_limit_succeeds and " and 0 steps" not in message
        if reason == Result.SUCCESS or (reason == Result.TIME_LIMIT and moved):
            goal.succeed()
        elif reason == Result.CANCELED:
            goal.canceled()
        else:
            goal.abort()
        return Result(termination_reason=reason, message=message)


def _seconds(duration: Duration) -> float:
    return duration.sec + duration.nanosec * 1e-9
