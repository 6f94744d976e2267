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
from m2distill_policy.errors import UserError

Result: TypeAlias = ExecuteInstruction.Result
FEEDBACK_PERIOD_S = 0.5


class ExecuteServer:
    """Runs the goals of the policy node.

    The node calls `count_step` for each command, `finish` for every event that ends a goal, and `poll` regularly.

    Args:
        node: The policy node.
        is_active: Function that returns whether the node is active.
        begin: Function that starts following an instruction; it raises UserError if it cannot.
        end: Function that holds the arm for a reason and returns the timing of the run.
    """

    def __init__(
        self, node: Node, is_active: Callable[[], bool], begin: Callable[[str], None], end: Callable[[str], str]
    ):
        self._log = node.get_logger()
        self._is_active, self._begin, self._end = is_active, begin, end
        self._goal: ServerGoalHandle | None = None
        self._outcome = Future()  # (termination reason, message) of the running goal
        self._started_s = self._feedback_s = 0.0
        self._steps = 0
        self._server = ActionServer(
            node,
            ExecuteInstruction,
            "~/execute",
            self._execute,
            goal_callback=self._check_goal,
            handle_accepted_callback=self._start,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )

    def destroy(self) -> None:
        self._server.destroy()

    def count_step(self) -> None:
        self._steps += 1

    def succeed(self) -> None:
        """End the running goal with success."""
        if self._goal is not None:
            self._conclude(Result.SUCCESS, "success")

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
        elapsed_s = now_s - self._started_s
        if self._goal.is_cancel_requested:
            self._conclude(Result.CANCELED, "cancelled")
        elif elapsed_s >= _seconds(self._goal.request.time_limit):
            self._conclude(Result.TIME_LIMIT, "time limit reached")
        elif now_s - self._feedback_s >= FEEDBACK_PERIOD_S:
            self._feedback_s = now_s
            self._goal.publish_feedback(
                ExecuteInstruction.Feedback(
                    elapsed=Duration(sec=int(elapsed_s), nanosec=int(elapsed_s % 1 * 1e9)),
                    steps=self._steps,
                    hold_reason=hold_reason,
                )
            )

    def _conclude(self, reason: int, what: str) -> None:
        elapsed_s = time.monotonic() - self._started_s
        summary = self._end(what)
        self.finish(reason, f"{what} after {elapsed_s:.1f} s and {self._steps} steps; {summary}".rstrip("; "))

    def _check_goal(self, request: ExecuteInstruction.Goal) -> GoalResponse:
        limit_s = _seconds(request.time_limit)
        if self._is_active() and limit_s > 0:
            return GoalResponse.ACCEPT
        reason = f"time_limit is {limit_s} s, expected above 0" if self._is_active() else "the node is not active"
        self._log.warning(f"goal {request.instruction!r} rejected: {reason}")
        return GoalResponse.REJECT

    def _start(self, goal: ServerGoalHandle) -> None:
        """Start the goal within its acceptance, so that a stop that arrives later ends it.

        rclpy executes a goal after everything that has arrived by then, so `_execute` only awaits the outcome.
        """
        self.finish(Result.PREEMPTED, f"preempted by the goal {goal.request.instruction!r}")
        outcome = Future()
        self._goal, self._outcome, self._steps = goal, outcome, 0
        self._started_s = self._feedback_s = time.monotonic()
        try:
            self._begin(goal.request.instruction)
        except UserError as error:
            self.finish(Result.REFUSED, str(error))
        goal.execute(partial(self._execute, outcome))

    async def _execute(self, outcome: Future, goal: ServerGoalHandle) -> Result:
        reason, message = await outcome
        if reason in (Result.SUCCESS, Result.TIME_LIMIT):
            goal.succeed()
        elif reason == Result.CANCELED:
            goal.canceled()
        else:
            goal.abort()
        return Result(termination_reason=reason, message=message)


def _seconds(duration: Duration) -> float:
    return duration.sec + duration.nanosec * 1e-9
