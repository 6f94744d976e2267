"""The command topics. A Command becomes messages; standing still is a zero velocity, or the pose that the hand has.

With `dry_run` there is no command topic at all.
"""

import math
import time
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.duration import Duration
from std_msgs.msg import Float64MultiArray

from m2distill_policy.action import Command
from m2distill_policy.control.session import PolicySession
from m2distill_policy.observations.poses import Pose, displace
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.policy.gripper import make_gripper
from m2distill_policy.safety.output_parameters import OutputParameters

AT_REST = np.zeros(3)
FLUSH_LIMIT = Duration(seconds=0.5)
SAY_AGAIN_S = 5.0


class Outputs:
    """`stop` may be called from any thread."""

    def __init__(self, entities: ManagedEntities, settings: OutputParameters, session: PolicySession, frame_id: str):
        self._clock, self._log, self._frame_id = entities.node.get_clock(), entities.node.get_logger(), frame_id
        self._stamp_sending = settings.command_stamp == "sending"
        self._session, self._period_s = session, 1 / session.spec.rate_hz
        kind, topic, self._encode = {
            "twist": (TwistStamped, "twist_cmd", self._twist),
            "pose": (PoseStamped, "target_pose", self._target),
            "array": (Float64MultiArray, "velocity_cmd", self._array),
        }[settings.output]
        self._by_pose = settings.output == "pose"
        self._pub = None if settings.dry_run else entities.publisher(kind, topic, 10)
        self._gripper = None if settings.dry_run else make_gripper(entities, settings)
        self.forget()

    def forget(self) -> None:
        self.last: Command | None = None
        self.sent_s = 0.0  # when, by the steady clock
        self._again: Callable[[], None] = lambda: None  # sends `last` once more
        self._moving = False  # a command was sent, and no stop after it
        self._pose: Pose | None = None  # the last good one
        self._pose_s = -math.inf  # when it came, by the steady clock
        if self._gripper is not None:
            self._gripper.forget()

    def heard_pose(self) -> None:
        """The session has taken a message of the hand's pose. A good one is kept: a stop is needed most when no good
        one follows it."""
        if self._session.pose is not None:
            self._pose, self._pose_s = self._session.pose, time.monotonic()

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
        self._moving = True
        self._again()

    def stop(self) -> None:
        if self._gripper is not None:
            self._gripper.forget()
        if self._pub is None or (self._by_pose and not self._knows_a_place_to_stay()):
            return
        self._moving = False
        self._pub.publish(self._encode(AT_REST, AT_REST, self._clock.now().nanoseconds))

    def flush(self) -> None:
        """Until those that listen have the last message: a publisher that is destroyed takes it along."""
        if self._pub is not None:
            self._pub.wait_for_all_acked(FLUSH_LIMIT)

    def _twist(self, linear_m_s: np.ndarray, angular_rad_s: np.ndarray, stamp_ns: int) -> TwistStamped:
        return conversions.twist_from_numpy(linear_m_s, angular_rad_s, stamp_ns, self._frame_id)

    def _array(self, linear_m_s: np.ndarray, angular_rad_s: np.ndarray, stamp_ns: int) -> Float64MultiArray:
        return Float64MultiArray(data=[*linear_m_s.tolist(), *angular_rad_s.tolist()])

    def _target(self, linear_m_s: np.ndarray, angular_rad_s: np.ndarray, stamp_ns: int) -> PoseStamped:
        """The measured pose and one step, as robosuite's OSC_POSE sets its goal."""
        assert self._pose is not None  # an input: without it there is no command, and no place to stay
        return _pose_message(
            displace(self._pose, linear_m_s * self._period_s, angular_rad_s * self._period_s), stamp_ns, self._frame_id
        )

    def _knows_a_place_to_stay(self) -> bool:
        """A target that stands is one step from the pose it was made of, or from a newer one: back there is a stop,
        whatever became of the poses since. An arm that stands may have been moved by others since its last pose."""
        age_s, limit_s = time.monotonic() - self._pose_s, self._session.limits.watchdog_s
        if self._moving or age_s <= limit_s:
            return True
        if self._pose is not None:
            self._log.warning(
                f"no target sent to stop: the last good ee_pose came {age_s:.1f} s ago, more than "
                f"{limit_s:g} (watchdog_s), and the arm may have been moved since",
                throttle_duration_sec=SAY_AGAIN_S,
            )
        return False


def _pose_message(pose: Pose, stamp_ns: int, frame_id: str) -> PoseStamped:
    message = PoseStamped()
    message.header.stamp = conversions.stamp_from_ns(stamp_ns)
    message.header.frame_id = frame_id
    position, quat = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = pose.position_m.tolist()
    quat.x, quat.y, quat.z, quat.w = pose.quat_xyzw.tolist()
    return message
