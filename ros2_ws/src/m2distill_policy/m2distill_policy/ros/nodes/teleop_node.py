"""Node `teleop`: a joystick or a keyboard moves the arm through the policy's command topics while a deadman is held.

While it is held, `operator_active` is published with every command, and a policy that receives it pauses until ~/start
or an instruction. Releasing the deadman, silence of the joystick and the end of the node publish one zero velocity.
"""

import sys
import time

from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool, Float64

from m2distill_policy.bringup.parameters import TeleopParameters
from m2distill_policy.control.teleop import Motion, Teleoperator, TeleopSettings
from m2distill_policy.ros.common import conversions, parameters
from m2distill_policy.ros.common.process import run_node
from m2distill_policy.ros.policy.outputs import AT_REST, FLUSH_LIMIT
from m2distill_policy.ros.teleop.keyboard import Keyboard


class TeleopNode(Node):
    """Publisher of an operator's commands."""

    def __init__(self):
        super().__init__("teleop")
        parameters.declare(self, TeleopParameters)
        parameters.declare(self, TeleopSettings)
        parameters.reject_changes(
            self, TeleopSettings, why=lambda: "it is read at startup only; start the node again with the new value"
        )
        chosen, settings = parameters.read(self, TeleopParameters), parameters.read(self, TeleopSettings)
        self._operator = Teleoperator(settings)
        self._frame_id, self._active = chosen.frame_id, False
        self._twist_pub = self.create_publisher(TwistStamped, "twist_cmd", 10)
        self._gripper_pub = self.create_publisher(Float64, "gripper_cmd", 10)
        self._active_pub = self.create_publisher(Bool, "operator_active", 10)
        self._keyboard = None
        if chosen.device == "keyboard":
            self._keyboard = Keyboard(settings)
            self.get_logger().info(self._keyboard.HELP)
        else:
            self.create_subscription(Joy, "joy", self._on_joy, 10)
        self.create_timer(1 / chosen.rate_hz, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Stop the arm if it is moving, and restore the terminal."""
        if self._active:
            self._release()
            for publisher in (
                self._twist_pub,
                self._active_pub,
            ):  # their destruction drops messages that are still queued
                publisher.wait_for_all_acked(FLUSH_LIMIT)
        if self._keyboard is not None:
            self._keyboard.close()

    def _on_joy(self, message: Joy) -> None:
        before = self._operator.problem
        self._operator.receive(message.axes, message.buttons, time.monotonic())
        if self._operator.problem not in ("", before):
            self.get_logger().error(self._operator.problem)

    def _tick(self) -> None:
        now_s = time.monotonic()
        if self._keyboard is not None:
            self._operator.receive(*self._keyboard.read(now_s), now_s)
        motion = self._operator.motion(now_s)
        if motion is not None:
            self._active = True
            self._active_pub.publish(Bool(data=True))  # first, so that the policy pauses before the arm moves
            self._send(motion)
        elif self._active:
            self._release()

    def _send(self, motion: Motion) -> None:
        self._gripper_pub.publish(Float64(data=motion.gripper_width_m))
        self._publish_twist(motion.linear_m_s, motion.angular_rad_s)

    def _release(self) -> None:
        self._active = False
        self._publish_twist(AT_REST, AT_REST)
        self._active_pub.publish(Bool(data=False))

    def _publish_twist(self, linear_m_s, angular_rad_s) -> None:
        self._twist_pub.publish(
            conversions.twist_from_numpy(linear_m_s, angular_rad_s, self.get_clock().now().nanoseconds, self._frame_id)
        )


def main() -> int:
    """Run the node; return the exit status."""
    return run_node(TeleopNode)


if __name__ == "__main__":
    sys.exit(main())
