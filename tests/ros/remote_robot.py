"""Robot on another host than its policy, for two_hosts.py. Orders are lines on stdin, answers are lines of JSON.

run              follow the instruction; {"state", "reason"} when the policy acts
hold REASON      {"state", "reason"} when the policy holds the arm for a reason with these words
measure SECONDS  {"periods", "missed", "median_ms", "p99_ms", "max_ms"}: from a set's stamp to its command
"""

import argparse
import contextlib
import json
import queue
import sys
import threading
import time

import cv2
import numpy as np
import rclpy
from geometry_msgs.msg import TwistStamped
from harness import CAMERAS, KNOWN, Client
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import CompressedImage

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.ros.common import conversions

LIMIT_S = 60.0


class RemoteRobot(Client):
    """Client that publishes images of any size and transport, and notes when commands arrive."""

    def __init__(self, width: int, height: int, compressed: bool):
        super().__init__()
        self.hand = None
        self.stamps_ns: list[int] = []
        self.arrived_ns: dict[int, int] = {}
        noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        self._pixels = cv2.resize(noise, (width, height))
        self._jpeg = cv2.imencode(".jpg", self._pixels)[1].tobytes() if compressed else b""
        if compressed:
            for publisher in self.image_pubs.values():
                self.destroy_publisher(publisher)
            self.image_pubs = {
                name: self.create_publisher(CompressedImage, f"{name}/image_raw/compressed", 1) for name in CAMERAS
            }
        self.create_subscription(TwistStamped, "twist_cmd", self._on_command, 100)

    def sense(self, stamp_ns: int | None = None) -> None:
        stamp_ns = time.time_ns()
        for name, publisher in self.image_pubs.items():
            if self._jpeg:
                message = CompressedImage(format="jpeg", data=self._jpeg)
                message.header.stamp = conversions.stamp_from_ns(stamp_ns)
            else:
                message = conversions.image_from_numpy(self._pixels, stamp_ns, name)
            publisher.publish(message)
        self.sizes = {}
        super().sense(stamp_ns)
        self.stamps_ns.append(stamp_ns)

    def _on_command(self, twist: TwistStamped) -> None:
        self.arrived_ns[conversions.stamp_to_ns(twist.header.stamp)] = time.time_ns()

    def measure(self, seconds: float) -> dict:
        first, until_s = len(self.stamps_ns), time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > until_s, "the end", seconds + LIMIT_S)
        stamps = self.stamps_ns[first:]
        until_s = time.monotonic() + 1
        self.wait(lambda: time.monotonic() > until_s, "late commands")
        took_ms = [1e-6 * (self.arrived_ns[stamp] - stamp) for stamp in stamps if stamp in self.arrived_ns]
        held = self.status.reason if self.status and self.status.state == PolicyStatus.HOLDING else ""
        found = {"periods": len(stamps), "missed": len(stamps) - len(took_ms), **({"held": held} if held else {})}
        if took_ms:
            percentiles = zip(("median_ms", "p99_ms", "max_ms"), np.percentile(took_ms, (50, 99, 100)), strict=True)
            found |= {name: round(float(value), 1) for name, value in percentiles}
        return found

    def obey(self, order: list[str], instruction: str) -> dict:
        if order[0] == "measure":
            return self.measure(float(order[1]))
        if order[0] == "run":
            self.wait(lambda: self.status and self.command.service_is_ready(), "the policy", LIMIT_S)
            if self.status.instruction != instruction:
                self.instruct(instruction)
        state = {"run": PolicyStatus.RUNNING, "hold": PolicyStatus.HOLDING}[order[0]]
        words = " ".join(order[1:])
        self.wait(lambda: self.status.state == state and words in self.status.reason, " ".join(order), LIMIT_S)
        return {"state": self.status.state, "reason": self.status.reason}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--transport", default="raw", choices=("raw", "compressed"))
    parser.add_argument("--instruction", default=KNOWN[0])
    options = parser.parse_args()
    orders: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda: [orders.put(line) for line in sys.stdin], daemon=True).start()
    rclpy.init()
    robot = RemoteRobot(options.width, options.height, options.transport == "compressed")
    robot.sensors.reset()
    with contextlib.suppress(ExternalShutdownException):
        while True:
            robot.spinner.spin_once(timeout_sec=0.05)
            if not orders.empty():
                print(json.dumps(robot.obey(orders.get().split(), options.instruction)), flush=True)


if __name__ == "__main__":
    main()
