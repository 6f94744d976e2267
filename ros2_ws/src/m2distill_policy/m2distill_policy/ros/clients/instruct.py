"""Tells a running policy node what to do, and prints what it answers; the command is in m2distill_policy/clients.py."""

import argparse
import sys

from std_msgs.msg import String

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.client_cli import instruct_arguments
from m2distill_policy.errors import UserError
from m2distill_policy.ros.clients.client_node import ClientNode
from m2distill_policy.ros.common.conversions import COMPARING, LATCHED
from m2distill_policy.ros.common.process import run_command

FIND_TIMEOUT_S = 15.0  # for the policy node to be heard
ANSWER_TIMEOUT_S = 60.0  # for it to act or to refuse: other words are compared, for which a language model may load
STATES = {
    PolicyStatus.IDLE: "idle",
    PolicyStatus.RUNNING: "running",
    PolicyStatus.HOLDING: "holding",
    PolicyStatus.PAUSED: "paused",
    PolicyStatus.FAULT: "fault",
}


class InstructionClient(ClientNode):
    def __init__(self, namespace: str):
        super().__init__("client", namespace)
        self.status: PolicyStatus | None = None
        self._publisher = self.create_publisher(String, "instruction", 10)
        self.create_subscription(PolicyStatus, "policy/status", self._on_status, LATCHED)

    def _on_status(self, status: PolicyStatus) -> None:
        self.status = status

    def find(self) -> PolicyStatus:
        """The policy node's status, once it also listens. Raises UserError."""
        if not self.wait_until(lambda: self.status and self._publisher.get_subscription_count(), FIND_TIMEOUT_S):
            raise UserError(
                f"no policy node was heard for {FIND_TIMEOUT_S:.0f} s; start one with m2distill run, in "
                "the same ROS_DOMAIN_ID, and name its --namespace if it has one"
            )
        assert self.status  # was waited for
        return self.status

    def instruct(self, text: str) -> PolicyStatus:
        """Its first status that answers `text`: it acts, stands still, or has found a fault. Raises UserError."""
        self.find()
        self.status = None
        self._publisher.publish(String(data=text))
        if not self.wait_until(lambda: self.status and _is_answer(self.status), ANSWER_TIMEOUT_S):
            reason = f": {self.status.reason}" if self.status else ""
            raise UserError(f"told, but it does not act after {ANSWER_TIMEOUT_S:.0f} s{reason}")
        assert self.status  # was waited for
        return self.status


def _is_answer(status: PolicyStatus) -> bool:
    return status.state != PolicyStatus.HOLDING and not status.reason.startswith(COMPARING)


def _line(status: PolicyStatus) -> str:
    return f"{STATES[status.state]}: {status.instruction if status.state == PolicyStatus.RUNNING else status.reason}"


def instruct(client: InstructionClient, options: argparse.Namespace) -> None:
    """Print what the policy node says. Raises UserError where it is not heard, or does not do it."""
    words = options.instruction
    if not words and not options.stop:
        status = client.find()
        print(_line(status), *(f"  knows: {known}" for known in status.known_instructions), sep="\n")
        return
    status = client.instruct(" ".join(words))
    if words and status.state != PolicyStatus.RUNNING:
        raise UserError(f"it does not act, {_line(status)}")
    print(_line(status))


def main() -> int:
    return run_command(instruct_arguments, InstructionClient, instruct)


if __name__ == "__main__":
    sys.exit(main())
