"""ROS client of `m2distill replay`: it requests the recorded motion of a running policy node, and waits for its end."""

import argparse
import sys

from m2distill_interfaces.msg import PolicyStatus
from m2distill_interfaces.srv import Command
from m2distill_policy.bringup.replay import replay_arguments
from m2distill_policy.control.replay_policy import ENDED
from m2distill_policy.errors import UserError
from m2distill_policy.ros.clients.instruct import ANSWER_TIMEOUT_S, STATES, InstructionClient
from m2distill_policy.ros.common.process import run_command

START_LIMIT_S = 120.0  # until the node is active: its process imports torch
MOTION_LIMIT_S = 60.0  # until the arm moves first
INTERRUPTED = {
    PolicyStatus.IDLE: "it was stopped",
    PolicyStatus.FAULT: "a fault",
    PolicyStatus.OPERATOR: "an operator has taken over",
}


class ReplayClient(InstructionClient):
    """Client that follows one replay."""

    def replay(self, text: str) -> tuple[bool, str]:
        """Request the motion; return whether it reached the end of the recording, and a line about it.

        Raises:
            UserError: There is no such node, or the arm does not begin to move.
        """
        self.find(START_LIMIT_S)
        self.status = None
        answer = self._command.send(Command.Request.INSTRUCT, text, ANSWER_TIMEOUT_S)
        if not answer.accepted:
            raise UserError(f"the replay does not start, {STATES[answer.state]}: {answer.message}")
        if not self.wait_until(lambda: self._moves() or self._over(), MOTION_LIMIT_S):
            reason = self.status.reason if self.status else "no status"
            self._command.send(Command.Request.STOP)
            raise UserError(f"the arm has not moved within {MOTION_LIMIT_S:.0f} s: {reason}")
        while not self._over():
            self.run(0.2)
        status = self.status
        assert status is not None  # it is over
        self._command.send(Command.Request.STOP)  # also beneath an operator, so that nothing is left to continue
        if status.state == PolicyStatus.HOLDING:
            return True, status.reason
        return False, f"{INTERRUPTED[status.state]}: {status.reason}"

    def _moves(self) -> bool:
        return self.status is not None and self.status.state == PolicyStatus.RUNNING

    def _over(self) -> bool:
        """Return whether the recording or its order has ended. A pause and other holds end neither."""
        status = self.status
        if status is None:
            return False
        return status.state in INTERRUPTED or (status.state == PolicyStatus.HOLDING and status.reason.startswith(ENDED))


def main() -> int:
    """Run the client; return the exit status: 0 at the end of the recording, 1 if the replay ended before."""
    status = 0

    def use(client: ReplayClient, options: argparse.Namespace) -> None:
        nonlocal status
        complete, line = client.replay(options.text)
        status = 0 if complete else 1
        print(line if complete else f"the replay ended before the recording: {line}")

    return run_command(replay_arguments, ReplayClient, use) or status


if __name__ == "__main__":
    sys.exit(main())
