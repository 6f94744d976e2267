"""Soak client for `m2distill bench soak`: it keeps a running system busy and counts missing actions.

    python -m m2distill_training.bench.ros.soak_client --instruction "pick up the milk" --episodes 60 --episode-s 60

It sends the instruction and records one episode after the other. After every episode it prints one JSON object: the
actions received until then, the periods without one, the longest time without one, how often the instruction was sent,
and the recorder's response.
"""

import argparse
import json
import sys
import time

import rclpy
from std_msgs.msg import String
from std_srvs.srv import Trigger

from m2distill_interfaces.msg import PolicyAction, PolicyStatus
from m2distill_interfaces.srv import Command
from m2distill_policy.ros.clients.client_node import ClientNode, CommandClient
from m2distill_policy.ros.common.conversions import LATCHED
from m2distill_policy.ros.common.process import run_client

READY = (PolicyStatus.IDLE, PolicyStatus.FAULT)  # states in which the instruction is sent again


class SoakClient(ClientNode):
    """Client of the policy and of the recorder."""

    def __init__(self, instruction: str, period_s: float):
        super().__init__("soak")
        self._instruction, self._period_s = instruction, period_s
        self._status: PolicyStatus | None = None
        self._last_s: float | None = None  # stamp of the last action
        self.counts = {"actions": 0, "missed": 0, "longest_s": 0.0, "instructed": 0}
        self.create_subscription(PolicyStatus, "policy/status", self._on_status, LATCHED)
        self.create_subscription(PolicyAction, "policy/action", self._on_action, 1000)
        self._instruct = self.create_publisher(String, "instruction", 10)
        self._command = CommandClient(self)
        self._triggers = {
            name: self.create_client(Trigger, name)
            for name in ("recorder/start", "recorder/keep", "recorder/discard", "policy/reset_fault")
        }

    def _on_status(self, message: PolicyStatus) -> None:
        self._status = message

    def _on_action(self, message: PolicyAction) -> None:
        now_s = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        if self._last_s is not None:
            self.counts["missed"] += max(0, round((now_s - self._last_s) / self._period_s) - 1)
            self.counts["longest_s"] = max(self.counts["longest_s"], round(now_s - self._last_s, 3))
        self._last_s = now_s
        self.counts["actions"] += 1

    def ready(self) -> bool:
        """Return whether all nodes have started."""
        return (
            self._status is not None
            and self._instruct.get_subscription_count() > 1
            and self._command.is_ready()
            and all(client.service_is_ready() for client in self._triggers.values())
        )

    def start_policy(self) -> None:
        """Send the instruction, after a reset of a fault, and wait for an action."""
        assert self._status is not None  # the client is ready
        if self._status.state == PolicyStatus.FAULT:
            self.call_trigger(self._triggers["policy/reset_fault"])
        before = self.counts["actions"]
        self._command.send(Command.Request.INSTRUCT, self._instruction)
        self._instruct.publish(String(data=self._instruction))  # for the recorder
        self.counts["instructed"] += 1
        self.wait(lambda: self.counts["actions"] > before, "an action")

    def episode(self, seconds: float) -> dict:
        """Record one episode; return all counts since the start and the recorder's response."""
        self.call_trigger(self._triggers["recorder/start"])
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            assert self._status is not None  # the client is ready
            if self._status.state in READY:
                self.start_policy()
            rclpy.spin_once(self, timeout_sec=0.05)
        kept = self.call_trigger(self._triggers["recorder/keep"])
        if not kept.success:
            self.call_trigger(self._triggers["recorder/discard"])
        return {**self.counts, "recorder": kept.message}


def main() -> int:
    """Run the client; return the exit status."""
    parser = argparse.ArgumentParser(description="Keep a running system busy.")
    parser.add_argument("--instruction", required=True)
    parser.add_argument("--episodes", type=int, required=True)
    parser.add_argument("--episode-s", type=float, default=60.0)
    parser.add_argument("--rate-hz", type=float, default=20.0)
    options = parser.parse_args()

    def use(client: SoakClient) -> None:
        client.wait(client.ready, "the nodes")
        client.start_policy()
        print(json.dumps(client.counts), flush=True)
        for _ in range(options.episodes):
            print(json.dumps(client.episode(options.episode_s)), flush=True)

    return run_client(lambda: SoakClient(options.instruction, 1 / options.rate_hz), use)


if __name__ == "__main__":
    sys.exit(main())
