"""Client that keeps a running system busy and counts what it misses, started by `m2distill bench soak`.

    python -m m2distill_training.bench.ros.soak_client --instruction "pick up the milk" --episodes 60 --episode-s 60

It instructs the policy and records one episode after the other. For every episode it prints one JSON object: the
actions received until then, the periods between them without one, the longest time without one, how often the policy
had to be instructed again, and the recorder's answer.
"""

import argparse
import json
import sys
import time

import rclpy
from std_msgs.msg import String
from std_srvs.srv import Trigger

from m2distill_interfaces.msg import PolicyAction, PolicyStatus
from m2distill_policy.ros.clients.client_node import ClientNode
from m2distill_policy.ros.common.conversions import LATCHED
from m2distill_policy.ros.common.process import run_client

READY = (PolicyStatus.IDLE, PolicyStatus.FAULT)  # states that an instruction ends, after a reset of the fault


class Soak(ClientNode):
    def __init__(self, instruction: str, period_s: float):
        super().__init__("soak")
        self._instruction, self._period_s = instruction, period_s
        self._status: PolicyStatus | None = None
        self._last_s: float | None = None  # of an action, by its stamp
        self.counts = {"actions": 0, "missed": 0, "longest_s": 0.0, "instructed": 0}
        self.create_subscription(PolicyStatus, "policy/status", self._on_status, LATCHED)
        self.create_subscription(PolicyAction, "policy/action", self._on_action, 1000)
        self._instruct = self.create_publisher(String, "instruction", 10)
        self._verbs = {
            name: self.create_client(Trigger, name)
            for name in ("recorder/start", "recorder/keep", "policy/reset_fault")
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
        return (
            self._status is not None
            and self._instruct.get_subscription_count() > 1
            and all(client.service_is_ready() for client in self._verbs.values())
        )

    def act(self) -> None:
        """Start the policy and wait until it acts."""
        assert self._status is not None  # it is ready
        if self._status.state == PolicyStatus.FAULT:
            self.ask(self._verbs["policy/reset_fault"])
        heard = self.counts["actions"]
        self._instruct.publish(String(data=self._instruction))
        self.counts["instructed"] += 1
        self.wait(lambda: self.counts["actions"] > heard, "an action")

    def episode(self, seconds: float) -> dict:
        """Record and keep one more episode, then return all counts."""
        self.ask(self._verbs["recorder/start"])
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            assert self._status is not None  # it is ready
            if self._status.state in READY:
                self.act()
            rclpy.spin_once(self, timeout_sec=0.05)
        return {**self.counts, "recorder": self.ask(self._verbs["recorder/keep"]).message}


def main() -> int:
    parser = argparse.ArgumentParser(description="Keep a running system busy.")
    parser.add_argument("--instruction", required=True)
    parser.add_argument("--episodes", type=int, required=True)
    parser.add_argument("--episode-s", type=float, default=60.0)
    parser.add_argument("--rate-hz", type=float, default=20.0)
    options = parser.parse_args()

    def use(soak: Soak) -> None:
        soak.wait(soak.ready, "the nodes")
        soak.act()
        print(json.dumps(soak.counts), flush=True)
        for _ in range(options.episodes):
            print(json.dumps(soak.episode(options.episode_s)), flush=True)

    return run_client(lambda: Soak(options.instruction, 1 / options.rate_hz), use)


if __name__ == "__main__":
    sys.exit(main())
