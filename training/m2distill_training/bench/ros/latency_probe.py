"""Latency probe for `m2distill bench node`: it publishes sensors and records when the policy's commands arrive.

    python -m m2distill_training.bench.ros.latency_probe --instruction wave --seconds 60 --swap DIRECTORY

Two cameras and the joints are published at 20 Hz. All messages of a period have one stamp, the time before the first of
them is sent. A command has the stamp that it answers, so the latency includes both ways over DDS, decoding, the policy
and its limits. It prints `ready` after it has subscribed, and one JSON object at the end.
"""

import argparse
import json
import sys
import time

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.errors import UserError
from m2distill_policy.ros.clients.client_node import ClientNode
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.common.conversions import LATCHED
from m2distill_policy.ros.common.process import run_client
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS, libero_spec

RATE_HZ = 20
SETTLE_S = 2.0  # after the first command and around a swap, before measuring


class LatencyProbe(ClientNode):
    """Publisher of images of `size_px` and subscriber of the commands."""

    def __init__(self, size_px: int):
        super().__init__("probe")
        self.status = PolicyStatus()  # a received one has a checkpoint_id
        self.active_s: float | None = None  # when the first status arrived, in s since the epoch
        self.sent_ns: list[int] = []
        self.answered_ns: dict[int, int] = {}  # stamp -> time at which its command arrived
        random = np.random.default_rng(0)
        self._images = {
            camera.name: random.integers(0, 256, (size_px, size_px, 3), np.uint8) for camera in libero_spec().cameras
        }
        self._image_pubs = {name: self.create_publisher(Image, f"{name}/image_raw", 1) for name in self._images}
        self._joints_pub = self.create_publisher(JointState, "joint_states", 5)
        self._instruction_pub = self.create_publisher(String, "instruction", 10)
        self._policy_parameters = AsyncParameterClient(self, "policy")
        self.create_subscription(PolicyStatus, "policy/status", self._on_status, LATCHED)
        self.create_subscription(TwistStamped, "twist_cmd", self._on_command, 100)
        self.create_timer(1 / RATE_HZ, self._publish_sensors, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def instruct(self, instruction: str) -> None:
        """Send the instruction and wait until the policy acts regularly."""
        self.wait(
            lambda: self.status.checkpoint_id and self._instruction_pub.get_subscription_count(),
            "an active policy node",
        )
        self._instruction_pub.publish(String(data=instruction))
        self.wait(lambda: self.answered_ns, "a first command")
        self.run(SETTLE_S)

    def latencies(self, seconds: float) -> dict:
        """Measure for some seconds from now on; return the summary."""
        first = len(self.sent_ns)
        self.run(seconds)
        stamps = self.sent_ns[first:]
        self.wait(lambda: len(self.sent_ns) > first + len(stamps) + 1, "late commands")
        return summary(stamps, self.answered_ns)

    def swap(self, checkpoint: str) -> dict:
        """Swap another checkpoint in; return the duration and the longest gap between two commands meanwhile."""
        self.wait(self._policy_parameters.services_are_ready, "the parameter services")
        before = self.status.checkpoint_id
        begun_ns = time.time_ns()
        self._policy_parameters.set_parameters([Parameter("checkpoint", value=checkpoint)])
        self.wait(lambda: self.status.checkpoint_id != before, "the other checkpoint")
        taken_s = 1e-9 * (time.time_ns() - begun_ns)
        self.run(SETTLE_S)
        arrived_ns = sorted(at for at in self.answered_ns.values() if at > begun_ns - SETTLE_S * 1e9)
        return {"swap_s": round(taken_s, 2), "gap_periods": round(max(np.diff(arrived_ns)) * 1e-9 * RATE_HZ, 2)}

    def _publish_sensors(self) -> None:
        now_ns = time.time_ns()
        names = [*PANDA_JOINTS, *PANDA_FINGERS]
        joints = conversions.joint_state_from_numpy(names, np.full(len(names), 0.1), now_ns)
        images = {name: conversions.image_from_numpy(image, now_ns, name) for name, image in self._images.items()}
        self._joints_pub.publish(joints)
        for name, image in images.items():
            self._image_pubs[name].publish(image)
        self.sent_ns.append(now_ns)

    def _on_status(self, status: PolicyStatus) -> None:
        self.status = status
        self.active_s = self.active_s or time.time()

    def _on_command(self, twist: TwistStamped) -> None:
        """Record the arrival. Zero twists of a held arm have stamps of their own, which match no period."""
        self.answered_ns[conversions.stamp_to_ns(twist.header.stamp)] = time.time_ns()


def summary(stamps_ns: list[int], answered_ns: dict[int, int]) -> dict:
    """Return the latencies in ms and the periods without a command. Raises UserError if no command arrived."""
    took_ms = [1e-6 * (answered_ns[stamp] - stamp) for stamp in stamps_ns if stamp in answered_ns]
    if not took_ms:
        raise UserError(f"no command arrived in {len(stamps_ns)} periods; see the node's log")
    return {
        "periods": len(stamps_ns),
        "missed": len(stamps_ns) - len(took_ms),
        **{
            name: round(float(np.percentile(took_ms, q)), 2)
            for name, q in (("median_ms", 50), ("p99_ms", 99), ("max_ms", 100))
        },
    }


def measure(probe: LatencyProbe, instruction: str, seconds: float, swap: str) -> dict:
    """Return the start time, the latencies and the figures of a swap."""
    probe.instruct(instruction)
    return {"active_s": probe.active_s, **probe.latencies(seconds), **probe.swap(swap)}


def main() -> int:
    """Run the client; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Publish a robot's sensors and measure the latency of the policy's commands."
    )
    parser.add_argument("--instruction", required=True, help="an instruction that the checkpoint knows")
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of the measurement")
    parser.add_argument("--size-px", type=int, default=128, help="side of the images")
    parser.add_argument("--swap", required=True, help="directory of the checkpoint that is swapped in at the end")
    options = parser.parse_args()

    def use(probe: LatencyProbe) -> None:
        print("ready", flush=True)
        print(json.dumps(measure(probe, options.instruction, options.seconds, options.swap)), flush=True)

    return run_client(lambda: LatencyProbe(options.size_px), use)


if __name__ == "__main__":
    sys.exit(main())
