"""The sensor topics: messages become arrays in the session, which rejects what cannot be decoded, with the reason.

While the node is inactive they are looked at as well, so that activation can tell a robot that does not fit.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState

from m2distill_policy.control.session import JOINTS, POSE, PolicySession
from m2distill_policy.errors import UserError
from m2distill_policy.observations.observation import order_joints, prepare_image
from m2distill_policy.ros.common import conversions, topic_checks
from m2distill_policy.ros.common.managed_entities import ManagedEntities

RECENT_S = 1.0  # what was heard longer ago says nothing about now
LEAST_RATE = 0.8  # of the control rate


def best_effort(depth: int) -> QoSProfile:
    return QoSProfile(depth=depth, reliability=QoSReliabilityPolicy.BEST_EFFORT)


@dataclass
class Seen:
    """Of one input while the node was inactive: what was wrong with the newest message, and when they came."""

    problem: str
    times_s: list[float]


class Inputs:
    """`heard(input, stamp_ns)` is told of each message after the session has it. Unless `listening`, none gets in."""

    def __init__(
        self,
        entities: ManagedEntities,
        session: PolicySession,
        compressed: bool,
        frame_id: str,
        heard: Callable[[str, int], None],
    ):
        self.listening = False
        self._made, self._session, self._frame_id, self._heard = entities, session, frame_id, heard
        self._seen: dict[str, Seen] = {}
        kind, suffix = (CompressedImage, "/compressed") if compressed else (Image, "")
        self._decode = conversions.compressed_image_to_numpy if compressed else conversions.image_to_numpy
        for camera in (camera.name for camera in session.spec.cameras):
            topic = f"{camera}/image_raw{suffix}"
            entities.subscription(
                kind, topic, lambda message, name=camera: self._on_image(name, message), best_effort(1), needed=True
            )
        entities.subscription(JointState, JOINTS, self._on_joints, best_effort(5), needed=True)
        if POSE in (stream.name for stream in session.streams):
            entities.subscription(PoseStamped, POSE, self._on_pose, best_effort(1), needed=True)

    def check(self) -> tuple[list[str], list[str]]:
        """What the robot sends that does not fit the spec, and what it does not send, or too rarely."""
        now_s = time.monotonic()
        wrong, missing = [], topic_checks.problems(self._made)
        for stream in self._session.streams:
            seen = self._seen.get(stream.name, Seen("", []))
            times_s = [t for t in seen.times_s if now_s - t < RECENT_S]
            if not times_s:
                missing.append(f"{stream.name}: nothing heard in the last second")
                continue
            if seen.problem:
                wrong.append(seen.problem)
            rate_hz = (len(times_s) - 1) / max(times_s[-1] - times_s[0], 1e-9)
            if len(times_s) > 2 and rate_hz < LEAST_RATE * self._session.spec.rate_hz:
                missing.append(
                    f"{stream.name} comes at {rate_hz:.1f} Hz, the policy acts at {self._session.spec.rate_hz:g} Hz"
                )
        self._seen.clear()
        return wrong, missing

    def _look(self, name: str, problem: str) -> None:
        seen = self._seen.setdefault(name, Seen("", []))
        seen.problem = problem
        seen.times_s = [*seen.times_s[-99:], time.monotonic()]

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        stamp_ns = conversions.stamp_to_ns(message.header.stamp)
        try:
            image_HWC = self._decode(message)
        except conversions.MessageError as error:
            self._reject(camera, str(error), stamp_ns)
            return
        if self.listening:
            self._session.observe_image(camera, image_HWC, stamp_ns)
            self._heard(camera, stamp_ns)
        else:
            self._look(camera, _why_not(lambda: prepare_image(image_HWC, self._session.spec.camera(camera))))

    def _on_joints(self, message: JointState) -> None:
        stamp_ns = conversions.stamp_to_ns(message.header.stamp)
        if self.listening:
            self._session.observe_joints(message.name, message.position, stamp_ns)
            self._heard(JOINTS, stamp_ns)
        else:
            self._look(JOINTS, _why_not(lambda: order_joints(self._session.spec, message.name, message.position)))

    def _on_pose(self, message: PoseStamped) -> None:
        stamp_ns = conversions.stamp_to_ns(message.header.stamp)
        if message.header.frame_id != self._frame_id:
            self._reject(
                POSE,
                f"is in the frame {message.header.frame_id!r}, expected {self._frame_id!r}, the frame "
                "of the commands; set frame_id",
                stamp_ns,
            )
        elif self.listening:
            position, quat = message.pose.position, message.pose.orientation
            self._session.observe_pose((position.x, position.y, position.z), (quat.x, quat.y, quat.z, quat.w), stamp_ns)
            self._heard(POSE, stamp_ns)
        else:
            self._look(POSE, "")

    def _reject(self, name: str, reason: str, stamp_ns: int) -> None:
        if self.listening:
            self._session.reject_input(name, reason)
            self._heard(name, stamp_ns)
        else:
            self._look(name, f"{name}: {reason}")


def _why_not(check: Callable[[], object]) -> str:
    try:
        check()
    except UserError as error:
        return str(error)
    return ""
