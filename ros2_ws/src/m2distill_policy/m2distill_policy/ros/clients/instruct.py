"""ROS client of `m2distill instruct`: it sends an instruction to a running policy node and prints its status."""

import argparse
import sys

from std_msgs.msg import String

from m2distill_interfaces.msg import PolicyStatus
from m2distill_interfaces.srv import Command
from m2distill_policy.bringup.client_cli import instruct_arguments
from m2distill_policy.errors import UserError
from m2distill_policy.ros.clients.client_node import ClientNode, CommandClient
from m2distill_policy.ros.clients.stop_all import Stopper
from m2distill_policy.ros.common.conversions import LATCHED
from m2distill_policy.ros.common.process import run_command

FIND_TIMEOUT_S = 15.0  # until the policy node is discovered
ANSWER_TIMEOUT_S = 60.0  # until it acts or rejects; matching an unknown instruction may load a language model
STATES = {
    PolicyStatus.IDLE: "idle",
    PolicyStatus.RUNNING: "running",
    PolicyStatus.HOLDING: "holding",
    PolicyStatus.PAUSED: "paused",
    PolicyStatus.FAULT: "fault",
    PolicyStatus.OPERATOR: "operator",
}


class InstructionClient(ClientNode):
    """Client of a policy's commands and subscriber of its status."""

    def __init__(self, namespace: str):
        super().__init__("client", namespace)
        self.status: PolicyStatus | None = None
        self._command = CommandClient(self)
        self._publisher = self.create_publisher(String, "instruction", 10)
        self.create_subscription(PolicyStatus, "policy/status", self._on_status, LATCHED)

    def _on_status(self, status: PolicyStatus) -> None:
        self.status = status

    def find(self, limit_s: float = FIND_TIMEOUT_S) -> PolicyStatus:
        """Return the status of the policy node once all subscribers of instructions are found. Raises UserError."""
        topic = self.resolve_topic_name("instruction")

        def complete() -> bool:
            found = self._publisher.get_subscription_count()
            return bool(self.status and self._command.is_ready() and 0 < found >= self.count_subscribers(topic))

        if not self.wait_until(complete, limit_s):
            raise UserError(
                f"no policy node found within {limit_s:.0f} s; start one with m2distill run in the same "
                "ROS_DOMAIN_ID, and set --namespace if it has one"
            )
        self.one_server(self._command.service)
        assert self.status  # the wait above ensures it
        return self.status

    def instruct(self, text: str) -> PolicyStatus:
        """Request to follow `text` and return the status in which the policy acts. Raises UserError."""
        self.find()
        answer = self._command.send(Command.Request.INSTRUCT, text, ANSWER_TIMEOUT_S)
        if not answer.accepted:
            raise UserError(f"the policy does not act, {STATES[answer.state]}: {answer.message}")
        # recorders subscribe to the topic; for the policy this is a repetition, which changes nothing
        self._publisher.publish(String(data=text))

        def acts() -> bool:
            status = self.status
            return bool(status and status.state == PolicyStatus.RUNNING and status.instruction == answer.instruction)

        if not self.wait_until(lambda: acts() or self._ended(), ANSWER_TIMEOUT_S) or not acts():
            reason = f", {_line(self.status)}" if self.status else ""
            raise UserError(f"instruction accepted, but the policy does not act{reason}")
        assert self.status  # it acts
        return self.status

    def _ended(self) -> bool:
        """Return whether the policy has left the instruction again: idle, paused, fault or operator."""
        return bool(self.status and self.status.state not in (PolicyStatus.RUNNING, PolicyStatus.HOLDING))


def _line(status: PolicyStatus) -> str:
    return f"{STATES[status.state]}: {status.instruction if status.state == PolicyStatus.RUNNING else status.reason}"


def instruct(client: InstructionClient, options: argparse.Namespace) -> None:
    """Send the instruction, if any, and print the status. Raises UserError if the node is missing or does not act."""
    if options.stop:
        for name in Stopper(client, options.namespace).stop():
            print(f"stopped: {name}")
    elif options.instruction:
        print(_line(client.instruct(" ".join(options.instruction))))
    else:
        status = client.find()
        print(_line(status), *(f"  known instruction: {known}" for known in status.known_instructions), sep="\n")


def main() -> int:
    """Run the client; return the exit status."""
    return run_command(instruct_arguments, InstructionClient, instruct)


if __name__ == "__main__":
    sys.exit(main())
