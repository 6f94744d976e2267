"""Motion that an operator commands, in the format that the arm takes: a twist, six numbers, or a target pose.

Velocities are shortened to the speed limits of the arm. A target pose moves with the velocity from where the hand is
(`control/pose_target.py`). It is sent only while the pose of the hand is valid and fresh, as for a policy.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import Float64MultiArray

from m2distill_policy.control.pose_target import LedTarget
from m2distill_policy.errors import MessageError
from m2distill_policy.observations.frame_tree import FramePose
from m2distill_policy.observations.input_stream import InputStream
from m2distill_policy.observations.poses import Pose, valid_pose
from m2distill_policy.recording.episode_topics import MOTIONS, POSE
from m2distill_policy.robot import robot_from_settings
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.common.topic_checks import several_publishers
from m2distill_policy.ros.policy.hand_frames import Frames, HandFrames
from m2distill_policy.ros.policy.inputs import best_effort
from m2distill_policy.ros.policy.outputs import AT_REST, REPEAT_LOG_S
from m2distill_policy.ros.policy.part_sources import PartSources
from m2distill_policy.safety.arm_presets import limits_from_settings, output_from_settings
from m2distill_policy.safety.limits import within_speed


class VelocityMotion:
    """Velocities: twists on `twist_cmd`, or six numbers on `velocity_cmd`."""

    def __init__(self, node: Node, arm: Mapping[str, Any], frame_id: str):
        output = output_from_settings(arm).output
        self._node, self._frame_id, self._limits = node, frame_id, limits_from_settings(arm)
        self._by_twist = output == "twist"
        kind = TwistStamped if self._by_twist else Float64MultiArray
        self.publisher: Publisher = node.create_publisher(kind, MOTIONS[output].name, 10)

    def move(self, linear_m_s: np.ndarray, angular_rad_s: np.ndarray) -> None:
        """Publish a velocity."""
        linear, angular = within_speed(self._limits, linear_m_s, angular_rad_s)
        if self._by_twist:
            stamp_ns = self._node.get_clock().now().nanoseconds
            self.publisher.publish(conversions.twist_from_numpy(linear, angular, stamp_ns, self._frame_id))
        else:
            self.publisher.publish(conversions.velocity_from_numpy(linear, angular))

    def stop(self) -> None:
        """Publish the zero velocity."""
        self.move(AT_REST, AT_REST)

    def check(self) -> None:
        """Do nothing: a velocity needs no input."""


class PoseMotion:
    """Target poses on `target_pose`, led from the measured pose of the hand.

    Args:
        node: Node that publishes.
        arm: Settings of the arm.
        frame_id: Frame of the targets.
        rate_hz: Rate of the targets.
    """

    def __init__(self, node: Node, arm: Mapping[str, Any], frame_id: str, rate_hz: float):
        outputs, self._limits = output_from_settings(arm), limits_from_settings(arm)
        self._node, self._frame_id = node, frame_id
        self._target = LedTarget(arm, 1 / rate_hz)
        self._pose = InputStream(POSE, round(self._limits.max_age_s * 1e9), round(self._limits.max_lead_s * 1e9))
        self._base = outputs.base_frame or frame_id
        self._frames: PartSources | None = None
        self._conflict = ""  # several sources of the pose
        self._topic = node.resolve_topic_name(robot_from_settings(arm).topics.get(POSE, POSE))
        self.publisher: Publisher = node.create_publisher(PoseStamped, MOTIONS["pose"].name, 10)
        if outputs.ee_frame:
            hand = HandFrames(Frames(self._base, outputs.ee_frame), self._on_frame_pose, self._on_problem)
            self._frames = hand.subscribe(node, node.create_subscription)
        else:
            node.create_subscription(PoseStamped, self._topic, self._on_pose, best_effort(1))

    def move(self, linear_m_s: np.ndarray, angular_rad_s: np.ndarray) -> None:
        """Publish the next target, or hold the arm where it is if its pose is unknown."""
        if reason := self._why_hold():
            self._node.get_logger().warning(f"the arm is held: {reason}", throttle_duration_sec=REPEAT_LOG_S)
            if self._target.moving:
                self.stop()
            return
        target = self._target.lead(linear_m_s, angular_rad_s)
        self._target.sent()
        self._publish(target)

    def stop(self) -> None:
        """Publish the pose at which the arm stops: the measured one, or nothing if it may command an arm to move."""
        now_s = time.monotonic()
        if (pose := self._target.stop(now_s)) is not None:
            self._publish(pose)
        elif self._target.measured is not None:
            self._node.get_logger().warning(
                f"no target sent to stop: the last valid ee_pose is {self._target.age_s(now_s):.1f} s old, and the arm "
                "was not commanded since",
                throttle_duration_sec=REPEAT_LOG_S,
            )

    def check(self) -> None:
        """Look for several sources of the pose; call it about once a second."""
        if self._frames is not None:
            self._frames.check_graph()
        else:
            self._conflict = several_publishers(self._node, self._topic)

    def _why_hold(self) -> str:
        """Return why the pose of the hand must not be used; empty if it may be."""
        if conflict := self._frames.conflict if self._frames else self._conflict:
            return conflict
        if reason := self._pose.unusable_reason(self._node.get_clock().now().nanoseconds):
            return reason
        if (age_s := self._target.age_s(time.monotonic())) > self._limits.watchdog_s:
            return f"{POSE}: silent for {age_s:.1f} s"
        return ""

    def _on_pose(self, message: PoseStamped) -> None:
        if message.header.frame_id != self._base:
            self._on_problem(f"is in the frame {message.header.frame_id!r}, expected {self._base!r}", 0)
        else:
            self._receive(*conversions.pose_to_numpy(message), conversions.stamp_to_ns(message.header.stamp))

    def _on_frame_pose(self, found: FramePose) -> None:
        self._receive(*found.pose, found.stamp_ns)

    def _receive(self, position_m: np.ndarray, quat_xyzw: np.ndarray, stamp_ns: int) -> None:
        try:
            pose = valid_pose(position_m, quat_xyzw)
        except MessageError as error:
            self._on_problem(str(error), stamp_ns)
            return
        self._pose.accept(pose, stamp_ns)
        self._target.receive(pose, time.monotonic())

    def _on_problem(self, reason: str, stamp_ns: int) -> None:
        self._pose.reject(f"{POSE}: {reason}")

    def _publish(self, pose: Pose) -> None:
        stamp_ns = self._node.get_clock().now().nanoseconds
        self.publisher.publish(conversions.pose_from_numpy(pose, stamp_ns, self._frame_id))


Motion = VelocityMotion | PoseMotion


def make_motion(node: Node, arm: Mapping[str, Any], frame_id: str, rate_hz: float) -> Motion:
    """Return the motion in the format of the arm's output."""
    if output_from_settings(arm).output == "pose":
        return PoseMotion(node, arm, frame_id, rate_hz)
    return VelocityMotion(node, arm, frame_id)
