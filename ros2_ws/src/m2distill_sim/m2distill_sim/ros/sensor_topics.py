"""Topics of the simulated robot's sensors: cameras with their calibration, joints, the hand's pose, TF and a URDF.

The names and frames are those of a real Panda's drivers. One call returns all messages of one observation, with equal
stamps, so that a simulator in lockstep can publish the same set again.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TransformStamped
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String

from m2distill_policy.cameras import Camera
from m2distill_policy.ros.common import conversions
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS
from m2distill_sim.arm_env import ArmEnv, SimObservation
from m2distill_sim.kinematics import BASE, TCP, WORLD, ArmKinematics, Intrinsics, quat_xyzw

try:
    from tf2_msgs.msg import TFMessage  # of every distribution; beside the wheels `make setup` builds it
except ImportError:
    TFMessage = None

FINGER_SIGNS = (1.0, -1.0)  # robosuite's second finger has a negative position, robots' have not
Outgoing = tuple[Publisher, Any]  # a message and where it is published


class SensorTopics:
    """Publishers of the sensors.

    Args:
        node: Node of the publishers.
        cameras: Cameras to publish.
    """

    def __init__(self, node: Node, cameras: Sequence[Camera]):
        self._cameras = cameras
        self._joints_pub = node.create_publisher(JointState, "joint_states", 5)
        self._pose_pub = node.create_publisher(PoseStamped, "ee_pose", 1)
        self._image_pubs = {c.name: node.create_publisher(Image, f"{c.name}/image_raw", 1) for c in cameras}
        self._info_pubs = {c.name: node.create_publisher(CameraInfo, f"{c.name}/camera_info", 1) for c in cameras}
        self._urdf_pub = node.create_publisher(String, "robot_description", conversions.LATCHED)
        self._tf_pub = self._static_pub = None
        if TFMessage is None:
            node.get_logger().warning("no TF is published: tf2_msgs is not installed; install ros-$ROS_DISTRO-tf2-msgs")
        else:
            self._tf_pub = node.create_publisher(TFMessage, "tf", 100)
            self._static_pub = node.create_publisher(TFMessage, "tf_static", conversions.LATCHED)

    def describe(self, env: ArmEnv, now_ns: int) -> None:
        """Publish what stays the same during an episode: the URDF, and the transforms between fixed frames."""
        self._arm = ArmKinematics(env.model)
        self._urdf_pub.publish(String(data=self._arm.urdf()))
        self._infos = {
            c.name: _camera_info(self._arm.intrinsics(c.sim_camera, *env.cameras[c.name])) for c in self._cameras
        }
        if self._static_pub is not None:
            fixed = [(WORLD, BASE, self._arm.base)]
            links = (link for link in self._arm.links if link.parent and not link.joint)
            fixed += [(link.parent, link.name, link.offset) for link in links]
            for camera in self._cameras:
                if mount := self._arm.mount(camera.sim_camera):
                    fixed.append((mount[0], optical_frame(camera.name), mount[1]))
            self._static_pub.publish(TFMessage(transforms=[_transform(*edge, now_ns) for edge in fixed]))

    def messages(self, env: ArmEnv, observation: SimObservation, now_ns: int) -> list[Outgoing]:
        """Return all messages of an observation of `env`."""
        positions = np.concatenate([observation.joint_positions, observation.gripper_positions * FINGER_SIGNS])
        arm_rad_s, fingers_m_s = env.joint_velocities()
        velocities = np.concatenate([arm_rad_s, fingers_m_s * FINGER_SIGNS])
        names = [*PANDA_JOINTS, *PANDA_FINGERS]
        joints = conversions.joint_state_from_numpy(names, positions, now_ns, velocities)
        found: list[Outgoing] = [(self._joints_pub, joints), (self._pose_pub, self._pose(positions, now_ns))]
        if self._tf_pub is not None:
            motions, parents = self._arm.motions(positions), {link.name: link.parent for link in self._arm.links}
            edges = [_transform(parents[name], name, matrix, now_ns) for name, matrix in motions.items()]
            found.append((self._tf_pub, TFMessage(transforms=edges)))
        for name, publisher in self._image_pubs.items():
            info = self._infos[name]
            info.header.stamp, info.header.frame_id = conversions.stamp_from_ns(now_ns), optical_frame(name)
            found.append((self._info_pubs[name], info))
            image = conversions.image_from_numpy(observation.images[name], now_ns, optical_frame(name))
            found.append((publisher, image))
        return found

    def _pose(self, positions: np.ndarray, now_ns: int) -> PoseStamped:
        hand = self._arm.pose(TCP, positions)
        message = PoseStamped()
        message.header.stamp, message.header.frame_id = conversions.stamp_from_ns(now_ns), BASE
        place, turn = message.pose.position, message.pose.orientation
        place.x, place.y, place.z = hand[:3, 3].tolist()
        turn.x, turn.y, turn.z, turn.w = quat_xyzw(hand).tolist()
        return message


def optical_frame(camera: str) -> str:
    """Return the frame of a camera's images."""
    return f"{camera}_optical_frame"


def _camera_info(camera: Intrinsics) -> CameraInfo:
    f, x, y = camera.focal_px, camera.centre_x_px, camera.centre_y_px
    return CameraInfo(
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[f, 0.0, x, 0.0, f, y, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[f, 0.0, x, 0.0, 0.0, f, y, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def _transform(parent: str, child: str, matrix: np.ndarray, stamp_ns: int) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.stamp, message.header.frame_id = conversions.stamp_from_ns(stamp_ns), parent
    shift, turn = message.transform.translation, message.transform.rotation
    shift.x, shift.y, shift.z = matrix[:3, 3].tolist()
    turn.x, turn.y, turn.z, turn.w = quat_xyzw(matrix).tolist()
    return message
