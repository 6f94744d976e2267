"""Pose of the hand from TF: the transforms on `tf` and `tf_static`, composed by `observations/frame_tree.py`.

tf2_ros is not used: it interpolates for a given time, while the control loop needs the newest pose as soon as it
arrives, with the age of its oldest part, and reports why there is none. The topics are relative, so that each
namespace has frames of its own; `remap` connects them with `/tf`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.subscription import Subscription

from m2distill_policy.errors import MessageError, UserError
from m2distill_policy.observations.frame_tree import FramePose, FrameTree
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.common.topic_checks import TRANSFORMS
from m2distill_policy.ros.policy.part_sources import PartSources

try:
    from tf2_msgs.msg import TFMessage  # of every distribution; beside the wheels `make setup` builds it
except ImportError:
    TFMessage = None

DEPTH = 100  # as tf2_ros: several publishers send at once
MOVING = QoSProfile(depth=DEPTH, reliability=QoSReliabilityPolicy.BEST_EFFORT)  # matches every publisher
STATIC = QoSProfile(depth=DEPTH, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


class Frames(NamedTuple):
    """Names of the two frames that a pose connects."""

    base: str
    hand: str


class HandFrames:
    """Poses of the hand from the messages on TF.

    Args:
        frames: Frames of the base and of the hand.
        on_pose: Function that is called with each new pose.
        on_problem: Function that is called with the reason and the stamp in ns if a message leaves no pose.

    Raises:
        UserError: tf2_msgs is not installed.
    """

    def __init__(
        self,
        frames: Frames,
        on_pose: Callable[[FramePose], None],
        on_problem: Callable[[str, int], None],
    ):
        if TFMessage is None:
            raise UserError(
                f"ee_frame is {frames.hand!r}, but tf2_msgs is not installed; install ros-$ROS_DISTRO-tf2-msgs, or "
                "leave ee_frame empty and publish ee_pose"
            )
        self._frames, self._on_pose, self._on_problem = frames, on_pose, on_problem
        self._tree = FrameTree()
        self._chain: frozenset[str] = frozenset()  # moving frames between the two; empty: unknown
        self._arrived: set[str] = set()  # those of them that have arrived since the last pose
        self.sources: PartSources | None = None  # set by `subscribe`

    def subscribe(self, node: Node, create: Callable[..., Subscription]) -> PartSources:
        """Subscribe to TF, and return who publishes the frames.

        Args:
            node: Node of the subscriptions.
            create: Function that creates one, as `Node.create_subscription`.
        """
        moving = create(TFMessage, "tf", self.on_moving, MOVING)
        create(TFMessage, "tf_static", self.on_static, STATIC)
        self.sources = PartSources(node, moving.topic_name, TRANSFORMS)
        return self.sources

    def on_static(self, message: Any) -> None:
        """Process a message on tf_static."""
        self._update(message.transforms, False)
        self._chain = frozenset()

    def on_moving(self, message: Any, info: dict[str, int | None]) -> None:
        """Process a message on tf."""
        children = {transform.child_frame_id.removeprefix("/") for transform in message.transforms}
        self._update(message.transforms, True)
        if self._chain and not children & self._chain:
            return  # of other parts of the robot
        try:
            found = self._tree.find(self._frames.hand, self._frames.base)
        except MessageError as error:
            self._chain = frozenset()
            stamps_ns = [conversions.stamp_to_ns(transform.header.stamp) for transform in message.transforms]
            self._on_problem(str(error), max(stamps_ns, default=0))
            return
        self._chain = found.moving
        if self.sources is not None:
            self.sources.parts = found.moving
            self.sources.received(children, info["publication_sequence_number"])
        self._arrived |= children & found.moving
        if self._arrived >= found.moving:
            self._arrived = set()
            self._on_pose(found)

    def _update(self, transforms: list[TransformStamped], moving: bool) -> None:
        for transform in transforms:
            shift, turn = transform.transform.translation, transform.transform.rotation
            self._tree.update(
                transform.child_frame_id,
                transform.header.frame_id,
                (shift.x, shift.y, shift.z),
                (turn.x, turn.y, turn.z, turn.w),
                conversions.stamp_to_ns(transform.header.stamp) if moving else None,
            )
