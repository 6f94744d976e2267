"""Command topics: a Command becomes messages; a stop is a zero velocity, or the measured pose of the hand.

With `dry_run` no command topic exists.
"""

import time
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.duration import Duration
from std_msgs.msg import Float64MultiArray

from m2distill_policy.action import Command
from m2distill_policy.control.pose_target import PoseTarget
from m2distill_policy.control.session import PolicySession
from m2distill_policy.recording.episode_topics import MOTIONS
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.common.servo import ServoSwitch
from m2distill_policy.ros.policy.gripper import make_gripper
from m2distill_policy.safety.output_parameters import OutputParameters

AT_REST = np.zeros(3)
FLUSH_LIMIT = Duration(seconds=0.5)
REPEAT_LOG_S = 5.0


class Outputs:
    """Publishers of the motion and of the gripper. `stop` may be called from any thread.

    Args:
        entities: Entities of the node.
        settings: Parameters of the outputs.
        session: Source of the control period and of the hand's pose.
        frame_id: Frame of the commands.
    """

    def __init__(self, entities: ManagedEntities, settings: OutputParameters, session: PolicySession, frame_id: str):
        self._clock, self._log, self._frame_id = entities.node.get_clock(), entities.node.get_logger(), frame_id
        self._stamp_sending = settings.command_stamp == "sending"
        self._session, self._period_s = session, 1 / session.spec.rate_hz
        kind, self._encode = {
            "twist": (TwistStamped, self._twist),
            "pose": (PoseStamped, self._target),
            "array": (Float64MultiArray, self._array),
        }[settings.output]
        topic = MOTIONS[settings.output].name
        self._by_pose = settings.output == "pose"
        self._pose = PoseTarget(session.limits.watchdog_s)
        self._pub = None if settings.dry_run else entities.publisher(kind, topic, 10)
        self._gripper = self._servo = None
        if not settings.dry_run:
            self._servo = ServoSwitch(entities.node, settings.servo_service, settings.output)
            entities.at_destruction(self._servo.destroy)
            self._gripper = make_gripper(entities.node, settings, entities.publisher)
            entities.at_destruction(self._gripper.destroy)
        self.clear()

    def clear(self) -> None:
        """Clear what was sent and received, at the start of a run."""
        self.last: Command | None = None
        self.sent_s = 0.0  # when it was sent, by the steady clock
        self._publish: Callable[[], None] = lambda: None  # publishes `last`
        self._pose.clear()
        if self._gripper is not None:
            self._gripper.clear()

    def pose_received(self) -> None:
        """Keep the pose that the session has accepted; a stop needs it most when no valid one follows."""
        if self._session.pose is not None:
            self._pose.receive(self._session.pose, time.monotonic())

    def send(self, command: Command) -> None:
        """Encode everything, then publish. The motion comes last, because its stamp completes the command."""
        self.last = command
        pub, gripper = self._pub, self._gripper
        if pub is None or gripper is None:
            return
        stamp_ns = self._clock.now().nanoseconds if self._stamp_sending else command.stamp_ns
        motion = self._encode(command.linear_m_s, command.angular_rad_s, stamp_ns)

        def publish() -> None:
            gripper.send(command.gripper_width_m)
            pub.publish(motion)

        self._publish = publish
        self.send_again()

    def send_again(self) -> None:
        """Publish the last command again."""
        self.sent_s = time.monotonic()
        self._pose.sent()
        self._publish()

    def stop(self) -> None:
        """Publish the zero command."""
        if self._gripper is not None:
            self._gripper.clear()
        if self._pub is None:
            return
        stamp_ns = self._clock.now().nanoseconds
        if not self._by_pose:
            self._pub.publish(self._encode(AT_REST, AT_REST, stamp_ns))
        elif (pose := self._pose.stop(time.monotonic())) is not None:
            self._pub.publish(conversions.pose_from_numpy(pose, stamp_ns, self._frame_id))
        elif self._pose.measured is not None:
            self._log.warning(
                f"no target sent to stop: the last valid ee_pose is {self._pose.age_s(time.monotonic()):.1f} s old, "
                f"more than {self._session.limits.watchdog_s:g} (watchdog_s), and the arm may have been moved since",
                throttle_duration_sec=REPEAT_LOG_S,
            )

    def unlatch(self) -> None:
        """Hold a new pose at the next stop, because others may have moved the arm since the last one."""
        self._pose.unlatch()

    @property
    def topic(self) -> str | None:
        """Name of the command topic; None without one."""
        return self._pub.topic_name if self._pub is not None else None

    def unheard(self) -> str:
        """Return that nobody subscribes to the command topic; empty if somebody does."""
        if self._pub is None or self._pub.get_subscription_count():
            return ""
        return f"{self._pub.topic_name}: nobody subscribes, so the arm cannot move"

    def servo_problem(self) -> str:
        """Return why MoveIt Servo ignores the commands; empty if it does not, or is not used."""
        return self._servo.check() if self._servo is not None else ""

    def flush(self) -> None:
        """Wait until the subscribers have the last message, which the destruction of the publisher would drop."""
        if self._pub is not None:
            self._pub.wait_for_all_acked(FLUSH_LIMIT)

    def _twist(self, linear_m_s: np.ndarray, angular_rad_s: np.ndarray, stamp_ns: int) -> TwistStamped:
        return conversions.twist_from_numpy(linear_m_s, angular_rad_s, stamp_ns, self._frame_id)

    def _array(self, linear_m_s: np.ndarray, angular_rad_s: np.ndarray, stamp_ns: int) -> Float64MultiArray:
        return conversions.velocity_from_numpy(linear_m_s, angular_rad_s)

    def _target(self, linear_m_s: np.ndarray, angular_rad_s: np.ndarray, stamp_ns: int) -> PoseStamped:
        target = self._pose.step(linear_m_s * self._period_s, angular_rad_s * self._period_s)
        return conversions.pose_from_numpy(target, stamp_ns, self._frame_id)
