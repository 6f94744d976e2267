"""The sensor topics: messages become arrays in the session, which rejects what cannot be decoded, with the reason."""

from collections.abc import Callable

from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState

from m2distill_policy.ros import messages
from m2distill_policy.ros.made import Made
from m2distill_policy.session import PolicySession


def best_effort(depth: int) -> QoSProfile:
    return QoSProfile(depth=depth, reliability=QoSReliabilityPolicy.BEST_EFFORT)


class Inputs:
    """`heard(input, stamp_ns)` is told of each message after the session has it. Unless `listening`, none gets in."""

    def __init__(self, made: Made, session: PolicySession, compressed: bool, heard: Callable[[str, int], None]):
        self.listening = False
        self._session, self._heard = session, heard
        kind, suffix = (CompressedImage, "/compressed") if compressed else (Image, "")
        self._decode = messages.compressed_image_to_numpy if compressed else messages.image_to_numpy
        for camera in session.spec.cameras:
            made.subscription(kind, f"{camera.name}/image_raw{suffix}",
                              lambda message, name=camera.name: self._on_image(name, message), best_effort(1))
        made.subscription(JointState, "joint_states", self._on_joints, best_effort(5))

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        if not self.listening:
            return
        stamp_ns = messages.stamp_to_ns(message.header.stamp)
        try:
            self._session.observe_image(camera, self._decode(message), stamp_ns)
        except messages.MessageError as error:
            self._session.reject_input(camera, str(error))
        self._heard(camera, stamp_ns)

    def _on_joints(self, message: JointState) -> None:
        if not self.listening:
            return
        stamp_ns = messages.stamp_to_ns(message.header.stamp)
        self._session.observe_joints(message.name, message.position, stamp_ns)
        self._heard("joint_states", stamp_ns)
