"""Subscriptions of the recorder: every message goes to the open episode as it was received."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from geometry_msgs.msg import PoseStamped, Twist
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import String

from m2distill_policy.observations.frame_tree import FramePose
from m2distill_policy.observations.poses import Pose, are_near
from m2distill_policy.recording import episode_topics
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.common.diagnostics import InputMonitor
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.common.process import REPEAT_LOG_S
from m2distill_policy.ros.policy.hand_frames import Frames, HandFrames
from m2distill_policy.ros.recorder import raw_subscription
from m2distill_policy.ros.recorder.episode_controller import EpisodeController
from m2distill_policy.spec import PolicySpec

MAX_DRAINED = 1000  # messages per topic that are taken at the end of an episode
MIN_RATE = 0.8  # minimum rate of a watched topic, as a fraction of the control rate
MAX_FIXED = 1000  # messages on tf_static; a robot has a few
STILL_M, STILL_RAD = 1e-5, 1e-4  # distance of a target below which it is no motion, as in the import with small gains


class TopicRecorder:
    """Writes the topics to the open episode, labels it with what they contain, and measures their rates.

    Args:
        entities: Entities of the node.
        topics: Topics of an episode.
        spec: Spec of the policy.
        max_gap_s: Longest silence of a watched topic.
        episodes: Episodes to write to.
        hand: Frames of the hand whose pose is recorded as `ee_pose` from TF; None: it is received on that topic.
    """

    def __init__(
        self,
        entities: ManagedEntities,
        topics: Sequence[episode_topics.Topic],
        spec: PolicySpec,
        max_gap_s: float,
        episodes: EpisodeController,
        hand: Frames | None = None,
    ):
        self._node, self._steady, self._episodes = entities.node, entities.steady, episodes
        self._watched = [topic.name for topic in topics if topic.continuous]
        self._max_gap_ns, self._min_rate_hz = round(max_gap_s * 1e9), MIN_RATE * spec.rate_hz
        self._monitor: InputMonitor | None = None  # while the node is active
        self._hand: Pose | None = None  # newest pose
        self._subscriptions: list[Subscription] = []
        self._fixed: dict[bytes, None] = {}  # messages on tf_static, each once: they precede an episode
        readers: dict[str, Callable[[Any], None]] = {
            episode_topics.INSTRUCTION: self._on_instruction,
            episode_topics.STATUS: episodes.on_status,
            episode_topics.ACTION: episodes.on_action,
            # a twist of an operator commands the arm whatever its output is
            episode_topics.TWIST: lambda command: episodes.check.moved(episodes.motion, _speed(command.twist)),
            episode_topics.VELOCITY: lambda command: episodes.check.moved(episodes.motion, math.hypot(*command.data)),
            episode_topics.TARGET: self._on_target,
            episode_topics.POSE: self._on_pose,
            episode_topics.GRIPPER: lambda command: episodes.check.gripped(episode_topics.GRIPPER, command.data),
            **{episode_topics.camera_info(c.name).name: partial(self._on_camera_info, c.name) for c in spec.cameras},
        }
        if hand is not None:
            self._frame_id = hand.base
            frames = HandFrames(hand, self._on_frame_pose, lambda reason, stamp_ns: None)  # the check reports a gap
            readers[episode_topics.TF] = lambda message: frames.on_moving(message, {})
            readers[episode_topics.TF_STATIC] = frames.on_static
        for topic in topics:
            if hand is not None and topic.name == episode_topics.POSE:
                continue
            kind = raw_subscription.message_class(topic.type)
            # rclpy's type of a callback has no second argument.
            callback: Any = partial(self._on_message, topic.name, kind, readers.get(topic.name))
            subscription = self._node.create_subscription(
                kind, topic.source or topic.name, callback, raw_subscription.qos(topic), raw=True
            )
            self._subscriptions.append(subscription)
            entities.at_destruction(partial(self._node.destroy_subscription, subscription))

    def start(self) -> None:
        """Start to measure rates."""
        self._monitor = InputMonitor(self._watched, self._max_gap_ns)

    def begin(self) -> None:
        """Write the fixed transforms to the episode that has just started."""
        with self._episodes.disk_errors():
            for raw in self._fixed:
                info = {"source_timestamp": time.time_ns(), "publication_sequence_number": 0}
                self._episodes.write(episode_topics.TF_STATIC, raw, info)

    def stop(self) -> None:
        self._monitor = None

    def drain(self) -> None:
        """Take all messages that have arrived, because they belong to the episode that is about to end.

        The executor takes only one message of each topic before it serves a request.
        """
        for subscription in self._subscriptions:
            for _ in range(MAX_DRAINED):
                with subscription.handle:
                    message = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                if message is None:
                    break
                subscription.callback(*message)

    def rates_hz(self) -> dict[str, float]:
        """Return the rate of each watched topic."""
        return self._monitor.rates_hz(self._steady.now().nanoseconds) if self._monitor else {}

    def slow_topics(self) -> dict[str, str]:
        """Return one line for each watched topic below its minimum rate, by its name."""
        return {
            name: f"{name} arrives at {rate:.0f} Hz, required are {self._min_rate_hz:g}"
            for name, rate in self.rates_hz().items()
            if rate < self._min_rate_hz
        }

    def _on_message(
        self, name: str, kind: type, read: Callable[[Any], None] | None, raw: bytes, info: dict[str, int]
    ) -> None:
        if self._monitor and name in self._watched:
            self._monitor.received(name, self._steady.now().nanoseconds)
        if name == episode_topics.TF_STATIC and len(self._fixed) < MAX_FIXED:
            self._fixed.pop(bytes(raw), None)  # the last one counts
            self._fixed[bytes(raw)] = None
        with self._episodes.disk_errors():
            self._episodes.write(name, raw, info)
            if read:
                self._read(name, kind, read, raw)

    def _read(self, name: str, kind: type, read: Callable[[Any], None], raw: bytes) -> None:
        try:
            message = deserialize_message(raw, kind)
        except Exception as error:  # malformed bytes of another node may raise anything
            self._node.get_logger().warning(
                f"a message on {name} cannot be decoded: {error}", throttle_duration_sec=REPEAT_LOG_S
            )
        else:
            read(message)

    def _on_pose(self, message: PoseStamped) -> None:
        self._hand = conversions.pose_to_numpy(message)

    def _on_frame_pose(self, found: FramePose) -> None:
        """Record a pose from TF like one that was received."""
        message = conversions.pose_from_numpy(found.pose, found.stamp_ns, self._frame_id)
        info = {"source_timestamp": time.time_ns(), "publication_sequence_number": 0}
        self._on_message(episode_topics.POSE, PoseStamped, self._on_pose, serialize_message(message), info)

    def _on_target(self, message: PoseStamped) -> None:
        """Notice a target pose. It moves the arm unless it is about where the hand is."""
        target = conversions.pose_to_numpy(message)
        stays = self._hand is not None and are_near(self._hand, target, STILL_M, STILL_RAD)
        self._episodes.check.moved(self._episodes.motion, 0.0 if stays else 1.0)

    def _on_instruction(self, message: String) -> None:
        self._episodes.on_instruction(message.data)

    def _on_camera_info(self, camera: str, info: CameraInfo) -> None:
        calibration = {
            "width": info.width,
            "height": info.height,
            "distortion_model": info.distortion_model,
            "d": list(info.d),
            "k": list(info.k),
            "r": list(info.r),
            "p": list(info.p),
        }
        self._episodes.on_calibration(camera, calibration)


def _speed(twist: Twist) -> float:
    linear, angular = twist.linear, twist.angular
    return math.hypot(linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
