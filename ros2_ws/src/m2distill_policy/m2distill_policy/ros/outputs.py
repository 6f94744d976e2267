"""The command topics. A Command becomes messages; standing still is a zero velocity, or the pose that the hand has.

With `dry_run` there is no command topic at all.
"""

import time
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.duration import Duration
from std_msgs.msg import Float64MultiArray

from m2distill_policy.action import Command
from m2distill_policy.poses import Pose, displace
from m2distill_policy.ros import messages
from m2distill_policy.ros.gripper import make_gripper
from m2distill_policy.ros.made import Made
from m2distill_policy.ros.policy_parameters import OutputParameters
from m2distill_policy.session import PolicySession

AT_REST = np.zeros(3)
FLUSH_LIMIT = Duration(seconds=0.5)


class Outputs:
    """`stop` may be called from any thread."""

    def __init__(self, made: Made, settings: OutputParameters, session: PolicySession, frame_id: str):
        self._clock, self._frame_id = made.node.get_clock(), frame_id
        self._stamp_sending = settings.command_stamp == "sending"
        self._session, self._period_s = session, 1 / session.spec.rate_hz
        kind, topic, self._encode = {
            "twist": (TwistStamped, "twist_cmd", self._twist), "pose": (PoseStamped, "target_pose", self._target),
            "array": (Float64MultiArray, "velocity_cmd", self._array)}[settings.output]
        self._pub = None if settings.dry_run else made.publisher(kind, topic, 10)
        self._gripper = None if settings.dry_run else make_gripper(made, settings)
        self.forget()

    def forget(self) -> None:
        self.last: Command | None = None
        self.sent_s = 0.0  # when, by the steady clock
        self._again: Callable[[], None] = lambda: None  # sends `last` once more

    def send(self, command: Command) -> None:
        """Encode everything, then publish. The motion goes last: its stamp completes the command."""
        self.last = command
        pub, gripper = self._pub, self._gripper
        if pub is None or gripper is None:
            return
        stamp_ns = self._clock.now().nanoseconds if self._stamp_sending else command.stamp_ns
        motion = self._encode(command.linear_m_s, command.angular_rad_s, stamp_ns)

        def publish() -> None:
            gripper.send(command.gripper_width_m)
            pub.publish(motion)

        self._again = publish
        self.send_again()

    def send_again(self) -> None:
        self.sent_s = time.monotonic()
        self._again()

    def stop(self) -> None:
        if self._pub is None:
            return
        motion = self._encode(AT_REST, AT_REST, self._clock.now().nanoseconds)
        if motion is not None:
            self._pub.publish(motion)

    def flush(self) -> None:
        """Until those that listen have the last message: a publisher that is destroyed takes it along."""
        if self._pub is not None:
            self._pub.wait_for_all_acked(FLUSH_LIMIT)

    def _twist(self, linear_m_s: np.ndarray, angular_rad_s: np.ndarray, stamp_ns: int) -> TwistStamped:
        return messages.twist_from_numpy(linear_m_s, angular_rad_s, stamp_ns, self._frame_id)

    def _array(self, linear_m_s: np.ndarray, angular_rad_s: np.ndarray, stamp_ns: int) -> Float64MultiArray:
        return Float64MultiArray(data=[*linear_m_s.tolist(), *angular_rad_s.tolist()])

    def _target(self, linear_m_s: np.ndarray, angular_rad_s: np.ndarray, stamp_ns: int) -> PoseStamped | None:
        """The measured pose and one step, as robosuite's OSC_POSE sets its goal. None while no pose is known, when
        nothing has been commanded either."""
        pose = self._session.pose
        if pose is None:
            return None
        return _pose_message(displace(pose, linear_m_s * self._period_s, angular_rad_s * self._period_s), stamp_ns,
                             self._frame_id)


def _pose_message(pose: Pose, stamp_ns: int, frame_id: str) -> PoseStamped:
    message = PoseStamped()
    message.header.stamp = messages.stamp_from_ns(stamp_ns)
    message.header.frame_id = frame_id
    position, quat = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = pose.position_m.tolist()
    quat.x, quat.y, quat.z, quat.w = pose.quat_xyzw.tolist()
    return message
