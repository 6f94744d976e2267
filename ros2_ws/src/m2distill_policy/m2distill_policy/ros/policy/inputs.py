"""Sensor topics: messages become arrays in the session, which rejects malformed ones with the reason.

Messages are also checked while the node is inactive, so that the activation can report a robot that does not fit.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image, JointState

from m2distill_policy.control.session import JOINTS, POSE, PolicySession
from m2distill_policy.errors import UserError
from m2distill_policy.observations.frame_tree import FramePose
from m2distill_policy.observations.joint_merger import JointMerger
from m2distill_policy.observations.observation import prepare_image
from m2distill_policy.recording.episode_topics import NO_TOPICS, TF, image_topic
from m2distill_policy.ros.common import conversions, cv_bridge_decoding
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.common.topic_checks import JOINT_STATE, topic_problems
from m2distill_policy.ros.policy.hand_frames import Frames, HandFrames
from m2distill_policy.ros.policy.part_sources import PartSources
from m2distill_policy.spec import CameraSpec

RECENT_S = 1.0  # age above which a message is not considered at activation
MIN_RATE = 0.8  # minimum rate of an input, as a fraction of the control rate


def best_effort(depth: int) -> QoSProfile:
    """Return the QoS of sensor topics."""
    return QoSProfile(depth=depth, reliability=QoSReliabilityPolicy.BEST_EFFORT)


@dataclass
class InputCheck:
    """Messages of one input while the node is inactive: the fault of the newest one, and their arrival times."""

    problem: str
    times_s: list[float]


class Inputs:
    """Subscriptions to the cameras, the joints and the hand's pose.

    Messages reach the session only while `listening`.

    Args:
        entities: Entities of the node.
        session: Session that receives the observations.
        compressed: Subscribe to compressed images.
        frames: Frame that the hand's pose must be in, and the hand's frame in TF; if that is empty, the pose is
            received on the topic ee_pose.
        on_input: Function that is called with the input's name and the stamp in ns after each message.
        topics: Topics that have other names on the robot, as `Robot.topics`.
    """

    def __init__(
        self,
        entities: ManagedEntities,
        session: PolicySession,
        compressed: bool,
        frames: Frames,
        on_input: Callable[[str, int], None],
        topics: Mapping[str, str] = NO_TOPICS,
    ):
        self.listening = False
        observed = session.spec.observes_hand
        self._remedy = "the checkpoint observes it there" if observed else "the frame of the commands; set frame_id"
        self._entities, self._session, self._frame_id, self._on_input = entities, session, frames.base, on_input
        self._checks: dict[str, InputCheck] = {}
        self._no_pose = ""  # why TF has no pose of the hand
        self._reported: set[tuple[str, int, int]] = set()  # cameras with a size that was logged
        kind = CompressedImage if compressed else Image
        self._decode = conversions.compressed_image_to_numpy if compressed else cv_bridge_decoding.decoder()
        for camera in (camera.name for camera in session.spec.cameras):
            topic = image_topic(camera, compressed, topics)
            entities.subscription(
                kind,
                topic.source or topic.name,
                lambda message, name=camera: self._on_image(name, message),
                best_effort(1),
                needed=True,
            )
        self._before = JointMerger(session.joint_spec)  # joints received while the node is inactive
        # rclpy's type of a callback has no second argument.
        on_joints: Any = self._on_joints
        streams = [stream.name for stream in session.streams]
        joints_name = topics.get(JOINTS, JOINTS)
        if JOINTS in streams:
            entities.subscription(JointState, joints_name, on_joints, best_effort(5), needed=True)
        parts = session.joint_spec.joint_names + session.joint_spec.gripper_joint_names
        joints_topic = entities.node.resolve_topic_name(joints_name)
        self._joint_sources = PartSources(entities.node, joints_topic, JOINT_STATE, parts)
        self.sources = [self._joint_sources]
        if POSE in streams:
            self._receive_pose(frames, topics.get(POSE, POSE))

    def _receive_pose(self, frames: Frames, topic: str) -> None:
        if frames.hand:
            hand = HandFrames(frames, self._on_frame_pose, self._on_frame_problem)
            self.sources.append(hand.subscribe(self._entities.node, self._subscribe_to_frames))
        else:
            self._entities.subscription(PoseStamped, topic, self._on_pose, best_effort(1), needed=True)

    def _subscribe_to_frames(self, kind: type, topic: str, callback: Callable, qos: QoSProfile) -> Subscription:
        return self._entities.subscription(kind, topic, callback, qos, needed=topic == TF)

    def check(self) -> tuple[list[str], list[str]]:
        """Return the faults of the robot's messages, and the inputs that are missing or too slow."""
        now_s = time.monotonic()
        wrong, missing = [], topic_problems(self._entities)
        for stream in self._session.streams:
            check = self._checks.get(stream.name, InputCheck("", []))
            times_s = [t for t in check.times_s if now_s - t < RECENT_S]
            if not times_s:
                why = self._no_pose if stream.name == POSE else ""
                missing.append(f"{stream.name}: {why or 'no message in the last second'}")
                continue
            if check.problem:
                wrong.append(check.problem)
            rate_hz = (len(times_s) - 1) / max(times_s[-1] - times_s[0], 1e-9)
            if len(times_s) > 2 and rate_hz < MIN_RATE * self._session.spec.rate_hz:
                missing.append(
                    f"{stream.name} arrives at {rate_hz:.1f} Hz, the policy acts at {self._session.spec.rate_hz:g} Hz"
                )
        self._checks.clear()
        self._before.clear()
        return wrong, missing

    def _record(self, name: str, problem: str) -> None:
        check = self._checks.setdefault(name, InputCheck("", []))
        check.problem = problem
        check.times_s = [*check.times_s[-99:], time.monotonic()]

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        stamp_ns = conversions.stamp_to_ns(message.header.stamp)
        try:
            image_HWC = self._decode(message)
        except conversions.MessageError as error:
            self._reject(camera, str(error), stamp_ns)
            return
        if self.listening:
            self._session.observe_image(camera, image_HWC, stamp_ns)
            self._on_input(camera, stamp_ns)
        else:
            spec = self._session.spec.camera(camera)
            self._report_fit(spec, *image_HWC.shape[:2])
            self._record(camera, _fault(lambda: prepare_image(image_HWC, spec)))

    def _report_fit(self, camera: CameraSpec, height: int, width: int) -> None:
        """Log once that a camera has another aspect ratio than the model."""
        if height * camera.width != width * camera.height and (camera.name, height, width) not in self._reported:
            self._reported.add((camera.name, height, width))
            self._entities.node.get_logger().info(
                f"{camera.name}: images of {width}x{height} px are fitted to {camera.width}x{camera.height} px by "
                f"{camera.image_fit}"
            )

    def _on_joints(self, message: JointState, info: dict[str, int | None]) -> None:
        """Merge a message that may contain a part of the joints; an input has arrived when all of them have."""
        stamp_ns = conversions.stamp_to_ns(message.header.stamp)
        if self.listening:
            self._joint_sources.received(message.name, info["publication_sequence_number"])
            oldest_ns = self._session.observe_joints(message.name, message.position, stamp_ns)
            if oldest_ns is not None:
                self._on_input(JOINTS, oldest_ns)
        else:
            self._before.update(message.name, message.position, stamp_ns)
            if self._before.problem or self._before.complete:
                self._record(JOINTS, self._before.problem)

    def _on_pose(self, message: PoseStamped) -> None:
        stamp_ns = conversions.stamp_to_ns(message.header.stamp)
        if message.header.frame_id != self._frame_id:
            self._reject(
                POSE,
                f"is in the frame {message.header.frame_id!r}, expected {self._frame_id!r}; {self._remedy}",
                stamp_ns,
            )
        elif self.listening:
            position, quat = message.pose.position, message.pose.orientation
            self._session.observe_pose((position.x, position.y, position.z), (quat.x, quat.y, quat.z, quat.w), stamp_ns)
            self._on_input(POSE, stamp_ns)
        else:
            self._record(POSE, "")

    def _on_frame_pose(self, found: FramePose) -> None:
        self._no_pose = ""
        if self.listening:
            self._session.observe_pose(*found.pose, found.stamp_ns)
            self._on_input(POSE, found.stamp_ns)
        else:
            self._record(POSE, "")

    def _on_frame_problem(self, reason: str, stamp_ns: int) -> None:
        self._no_pose = reason  # before the activation no error: the frames may be published later
        if self.listening:
            self._reject(POSE, reason, stamp_ns)

    def _reject(self, name: str, reason: str, stamp_ns: int) -> None:
        if self.listening:
            self._session.reject_input(name, reason)
            self._on_input(name, stamp_ns)
        else:
            self._record(name, f"{name}: {reason}")


def _fault(check: Callable[[], object]) -> str:
    """Return the message of the UserError that `check` raises; empty if it raises none."""
    try:
        check()
    except UserError as error:
        return str(error)
    return ""
