"""Node `teleop`: a joystick or a keyboard moves the arm through the policy's command topics while a deadman is held.

While it is held, `operator_active` is published with every command, and a policy that receives it pauses until ~/start
or an instruction. Releasing the deadman, silence of the joystick, and the end or the suspension of the node publish one
stop: a zero velocity, or the pose of the hand. Old joystick messages, pasted text and escape sequences move nothing.
Further buttons start, label and end episodes of the recorder; a vibration or the terminal's bell confirms them.
"""

import sys
import time
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import Joy, JoyFeedback
from std_msgs.msg import Bool, Float64

from m2distill_policy.bringup.parameters import ArmParameters, TeleopParameters
from m2distill_policy.control.teleop import Motion, Teleoperator, TeleopSettings, teleop_defaults
from m2distill_policy.ros.common import conversions, parameters
from m2distill_policy.ros.common.process import REPEAT_LOG_S, run_node
from m2distill_policy.ros.common.servo import ServoSwitch
from m2distill_policy.ros.policy.gripper import make_gripper
from m2distill_policy.ros.policy.outputs import FLUSH_LIMIT
from m2distill_policy.ros.teleop.keyboard import Keyboard
from m2distill_policy.ros.teleop.motion import make_motion
from m2distill_policy.ros.teleop.recorder_orders import RecorderOrders, vibration
from m2distill_policy.safety.arm_presets import load_arm, output_from_settings

KEYBOARD_PERIOD_S = 0.02
CHECK_PERIOD_S = 1.0


class TeleopNode(Node):
    """Publisher of an operator's commands."""

    def __init__(self):
        super().__init__("teleop")
        parameters.declare(self, ArmParameters)
        arm = load_arm(parameters.read(self, ArmParameters).arm)
        defaults = teleop_defaults(arm)
        parameters.declare(self, TeleopParameters, defaults)
        parameters.declare(self, TeleopSettings, defaults)
        parameters.reject_changes(
            self, TeleopSettings, why=lambda: "it is read at startup only; start the node again with the new value"
        )
        chosen, settings = parameters.read(self, TeleopParameters), parameters.read(self, TeleopSettings)
        self._operator = Teleoperator(settings)
        self._active = False
        outputs = output_from_settings(arm)
        self._motion = make_motion(self, arm, chosen.frame_id, chosen.rate_hz)
        self._servo = ServoSwitch(self, outputs.servo_service, outputs.output)
        self._gripper = make_gripper(self, outputs, self.create_publisher)
        self.create_subscription(Float64, "gripper_cmd", self._on_gripper, 10)
        self._active_pub = self.create_publisher(Bool, "operator_active", 10)
        self._keyboard = None
        self._vibration_pub = None
        if chosen.device == "keyboard":
            self._keyboard = Keyboard(settings)
            self.get_logger().info(self._keyboard.HELP)
            self.create_timer(KEYBOARD_PERIOD_S, self._read_keyboard, clock=Clock(clock_type=ClockType.STEADY_TIME))
        else:
            # Depth 1: after a stall only the newest message counts. rclpy's type of a callback has no second argument.
            on_joy: Any = self._on_joy
            self.create_subscription(Joy, "joy", on_joy, 1)
            self._vibration_pub = self.create_publisher(JoyFeedback, "joy/set_feedback", 10)
        self._recorder = RecorderOrders(self, self._signal)
        self.create_timer(1 / chosen.rate_hz, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.create_timer(CHECK_PERIOD_S, self._check, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Stop the arm if it is moving, and restore the terminal."""
        self.suspend()

    def suspend(self) -> None:
        """Stop the arm if it is moving, and restore the terminal, before the process is stopped or ends."""
        self._operator.release()
        if self._active:
            self._release()
            for publisher in (self._motion.publisher, self._active_pub):
                publisher.wait_for_all_acked(FLUSH_LIMIT)  # their destruction drops messages that are still queued
        if self._keyboard is not None:
            self._keyboard.close()

    def resume(self) -> None:
        """Read the terminal again; the arm moves only after the deadman is released and pressed again."""
        if self._keyboard is not None:
            self._keyboard.open()

    def _check(self) -> None:
        self._servo.check()
        self._motion.check()

    def _on_gripper(self, message: Float64) -> None:
        if not self._active:  # then it may be an older one of ours
            self._operator.gripper_commanded(message.data)

    def _on_joy(self, message: Joy, info: dict[str, int]) -> None:
        if problem := self._why_old(message, info):
            self.get_logger().warning(problem, throttle_duration_sec=REPEAT_LOG_S)
            return
        before = self._operator.problem
        self._operator.receive(message.axes, message.buttons, time.monotonic())
        if self._operator.problem not in ("", before):
            self.get_logger().error(self._operator.problem)
        self._send_orders()

    def _why_old(self, message: Joy, info: dict[str, int]) -> str:
        """Return why a message is ignored: it was stamped or sent too long ago; empty if it is used.

        A stamp may be of the system's clock, as joy_node's, or of this node's; 0 is no stamp. Messages that were queued
        somewhere are as old as the time at which they were sent.
        """
        system_ns, limit_s = time.time_ns(), self._operator.settings.joy_max_age_s
        ages_s = {"sent": abs(system_ns - info["source_timestamp"]) / 1e9}
        if stamp_ns := conversions.stamp_to_ns(message.header.stamp):
            clocks_ns = (system_ns, self.get_clock().now().nanoseconds)
            ages_s["stamped"] = min(abs(now_ns - stamp_ns) for now_ns in clocks_ns) / 1e9
        return next(
            (
                f"joy ignored: it was {what} {age_s:.1f} s from now, allowed is {limit_s:g} (joy_max_age_s); "
                "check that the clocks agree"
                for what, age_s in ages_s.items()
                if age_s > limit_s
            ),
            "",
        )

    def _read_keyboard(self) -> None:
        assert self._keyboard is not None  # or this timer does not exist
        now_s = time.monotonic()
        self._operator.receive(*self._keyboard.read(now_s), now_s)
        self._send_orders()

    def _send_orders(self) -> None:
        for order in self._operator.take_orders():
            self._recorder.send(order)

    def _signal(self, on: bool) -> None:
        """Begin or end a pulse of the joystick's vibration, or ring the terminal's bell at its beginning."""
        if self._vibration_pub is not None:
            self._vibration_pub.publish(vibration(on))
        elif self._keyboard is not None and on:
            self._keyboard.ring()

    def _tick(self) -> None:
        motion = self._operator.motion(time.monotonic())
        if motion is not None:
            self._active = True
            self._active_pub.publish(Bool(data=True))  # first, so that the policy pauses before the arm moves
            self._send(motion)
        elif self._active:
            self._release()

    def _send(self, motion: Motion) -> None:
        if motion.gripper_width_m is not None:
            self._gripper.send(motion.gripper_width_m)
        self._motion.move(motion.linear_m_s, motion.angular_rad_s)

    def _release(self) -> None:
        self._active = False
        self._gripper.clear()
        self._motion.stop()
        self._active_pub.publish(Bool(data=False))


def main() -> int:
    """Run the node; return the exit status."""
    return run_node(TeleopNode)


if __name__ == "__main__":
    sys.exit(main())
