"""Fake robot for `m2distill bench record`: it publishes cameras and joints for a recorder and counts the messages.

    python -m m2distill_training.bench.ros.fake_robot --seconds 300 --width 640 --height 480 --camera-hz 30

It starts an episode, publishes for the given time, ends the episode, and prints one JSON object with the number of
messages per topic and the recorder's response.
"""

import argparse
import json
import sys

import numpy as np
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from m2distill_policy.errors import UserError
from m2distill_policy.ros.clients.client_node import ClientNode
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.common.process import run_client
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS, libero_spec

VERBS = ("start", "failure", "keep")
REST_S = 1.0  # between the last message and the end of the episode, for messages in transit


class FakeRobot(ClientNode):
    """Publisher of sensor messages and client of the recorder."""

    def __init__(self, width: int, height: int, camera_hz: float, joints_hz: float):
        super().__init__("fake_robot")
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        self._image = conversions.image_from_numpy(noise, 0, "fake_robot")
        self._names = [*PANDA_JOINTS, *PANDA_FINGERS]
        self.published: dict[str, int] = {}
        self.publishers_of = {
            f"{camera.name}/image_raw": self.create_publisher(Image, f"{camera.name}/image_raw", 10)
            for camera in libero_spec().cameras
        }
        self._cameras = list(self.publishers_of)
        self.publishers_of["joint_states"] = self.create_publisher(JointState, "joint_states", 10)
        self.publishers_of["instruction"] = self.create_publisher(String, "instruction", 10)
        self.recorder_services = {verb: self.create_client(Trigger, f"recorder/{verb}") for verb in VERBS}
        self._timers = [
            self.create_timer(1 / rate, publish, clock=steady, autostart=False)
            for rate, publish in ((camera_hz, self._publish_images), (joints_hz, self._publish_joints))
        ]

    def call(self, service: str) -> str:
        """Call a service of the recorder. Raises UserError if it fails."""
        answer = self.call_trigger(self.recorder_services[service])
        if not answer.success:
            raise UserError(answer.message)
        return answer.message

    def record(self, seconds: float) -> dict:
        """Record one episode; return the published messages per topic and the recorder's response."""
        self.wait(
            lambda: (
                all(p.get_subscription_count() for p in self.publishers_of.values())
                and all(client.service_is_ready() for client in self.recorder_services.values())
            ),
            "the recorder",
        )
        self.call("start")
        self._publish("instruction", String(data="bench"))
        for timer in self._timers:
            timer.reset()
        self.run(seconds)
        for timer in self._timers:
            timer.cancel()
        self.run(REST_S)
        self.call("failure")  # an episode without commands is kept only so
        return {"published": self.published, "answer": self.call("keep")}

    def _publish(self, topic: str, message) -> None:
        self.publishers_of[topic].publish(message)
        self.published[topic] = self.published.get(topic, 0) + 1

    def _publish_images(self) -> None:
        self._image.header.stamp = self.get_clock().now().to_msg()
        for topic in self._cameras:
            self._publish(topic, self._image)

    def _publish_joints(self) -> None:
        now_ns = self.get_clock().now().nanoseconds
        positions = np.full(len(self._names), 0.1)
        self._publish("joint_states", conversions.joint_state_from_numpy(self._names, positions, now_ns))


def main() -> int:
    """Run the client; return the exit status."""
    parser = argparse.ArgumentParser(description="Publish a robot's sensors for a recorder.")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--camera-hz", type=float, default=30.0)
    parser.add_argument("--joints-hz", type=float, default=100.0)
    options = parser.parse_args()
    return run_client(
        lambda: FakeRobot(options.width, options.height, options.camera_hz, options.joints_hz),
        lambda robot: print(json.dumps(robot.record(options.seconds)), flush=True),
    )


if __name__ == "__main__":
    sys.exit(main())
