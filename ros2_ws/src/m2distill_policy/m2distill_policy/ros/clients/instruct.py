"""ROS client of `m2distill instruct`: it sends an instruction to a running policy node and prints its status."""

import argparse
import sys

from std_msgs.msg import String

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.client_cli import instruct_arguments
from m2distill_policy.errors import UserError
from m2distill_policy.ros.clients.client_node import ClientNode
from m2distill_policy.ros.common.conversions import COMPARING, LATCHED
from m2distill_policy.ros.common.process import run_command

FIND_TIMEOUT_S = 15.0  # until the policy node is discovered
ANSWER_TIMEOUT_S = 60.0  # until it acts or rejects; matching an unknown instruction may load a language model
STATES = {
    PolicyStatus.IDLE: "idle",
    PolicyStatus.RUNNING: "running",
    PolicyStatus.HOLDING: "holding",
    PolicyStatus.PAUSED: "paused",
    PolicyStatus.FAULT: "fault",
}


class InstructionClient(ClientNode):
    """Publisher of instructions and subscriber of the policy's status."""

    def __init__(self, namespace: str):
        super().__init__("client", namespace)
        self.status: PolicyStatus | None = None
        self._publisher = self.create_publisher(String, "instruction", 10)
        self.create_subscription(PolicyStatus, "policy/status", self._on_status, LATCHED)

    def _on_status(self, status: PolicyStatus) -> None:
        self.status = status

    def find(self) -> PolicyStatus:
        """Return the status of the policy node once it has subscribed to instructions. Raises UserError."""
        if not self.wait_until(lambda: self.status and self._publisher.get_subscription_count(), FIND_TIMEOUT_S):
            raise UserError(
                f"no policy node found within {FIND_TIMEOUT_S:.0f} s; start one with m2distill run in the same "
                "ROS_DOMAIN_ID, and set --namespace if it has one"
            )
        assert self.status  # the wait above ensures it
        return self.status

    def instruct(self, text: str) -> PolicyStatus:
        """Send `text` and return the first status that answers it: running, idle, paused or fault. Raises UserError."""
        self.find()
        self.status = None
        self._publisher.publish(String(data=text))
        if not self.wait_until(lambda: self.status and _is_answer(self.status), ANSWER_TIMEOUT_S):
            reason = f": {self.status.reason}" if self.status else ""
            raise UserError(f"instruction sent, but the policy does not act after {ANSWER_TIMEOUT_S:.0f} s{reason}")
        assert self.status  # the wait above ensures it
        return self.status


def _is_answer(status: PolicyStatus) -> bool:
    return status.state != PolicyStatus.HOLDING and not status.reason.startswith(COMPARING)


def _line(status: PolicyStatus) -> str:
    return f"{STATES[status.state]}: {status.instruction if status.state == PolicyStatus.RUNNING else status.reason}"


def instruct(client: InstructionClient, options: argparse.Namespace) -> None:
    """Send the instruction, if any, and print the status. Raises UserError if the node is missing or does not act."""
    words = options.instruction
    if not words and not options.stop:
        status = client.find()
        print(_line(status), *(f"  known instruction: {known}" for known in status.known_instructions), sep="\n")
        return
    status = client.instruct(" ".join(words))
    if words and status.state != PolicyStatus.RUNNING:
        raise UserError(f"the policy does not act, {_line(status)}")
    print(_line(status))


def main() -> int:
    """Run the client; return the exit status."""
    return run_command(instruct_arguments, InstructionClient, instruct)


if __name__ == "__main__":
    sys.exit(main())
