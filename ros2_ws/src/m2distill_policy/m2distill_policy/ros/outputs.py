"""The command topics: a Command becomes messages, and zero twists when the arm is to stand still."""

import time

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.duration import Duration
from std_msgs.msg import Float64

from m2distill_policy.action import Command
from m2distill_policy.ros import messages
from m2distill_policy.ros.made import Made

ZERO = np.zeros(3)
FLUSH_LIMIT = Duration(seconds=0.5)


class Outputs:
    def __init__(self, made: Made, frame_id: str):
        self._clock, self._frame_id = made.node.get_clock(), frame_id
        self._gripper_pub = made.publisher(Float64, "gripper_cmd", 10)
        self._twist_pub = made.publisher(TwistStamped, "twist_cmd", 10)
        self.forget()

    def forget(self) -> None:
        self.last: Command | None = None
        self.sent_s = 0.0  # when, by the steady clock
        self._messages: list = []  # (publisher, message) pairs that `last` became

    def send(self, command: Command) -> None:
        """Encode everything, then publish. The twist goes last: its stamp completes the command."""
        twist = messages.twist_from_numpy(command.linear_m_s, command.angular_rad_s, command.stamp_ns, self._frame_id)
        self._messages = [(self._gripper_pub, Float64(data=command.gripper_width_m)), (self._twist_pub, twist)]
        self.last = command
        self.send_again()

    def send_again(self) -> None:
        self.sent_s = time.monotonic()
        for publisher, message in self._messages:
            publisher.publish(message)

    def stop(self) -> None:
        self._twist_pub.publish(messages.twist_from_numpy(ZERO, ZERO, self._clock.now().nanoseconds, self._frame_id))

    def flush(self) -> None:
        """Until those that listen have the last message: a publisher that is destroyed takes it along."""
        self._twist_pub.wait_for_all_acked(FLUSH_LIMIT)
