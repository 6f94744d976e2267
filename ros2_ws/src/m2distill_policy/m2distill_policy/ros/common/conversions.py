"""Conversions between ROS messages and numpy arrays. A malformed message always raises MessageError.

Images are (H, W, 3) uint8 RGB arrays. Stamps are integers in nanoseconds.
"""

import array
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray

from m2distill_policy.errors import MessageError
from m2distill_policy.observations.image_decoding import decode_compressed, decode_raw
from m2distill_policy.observations.poses import Pose

LATCHED = QoSProfile(
    depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL
)  # late subscribers receive the last message
COMPARING = "comparing"  # start of the reason in ~/status while an unknown instruction is matched


def stamp_to_ns(stamp: Time) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def stamp_from_ns(stamp_ns: int) -> Time:
    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)


def image_to_numpy(message: Image) -> np.ndarray:
    """Return the image as (H, W, 3) uint8 RGB."""
    return decode_raw(
        message.encoding, message.height, message.width, message.step, bool(message.is_bigendian), message.data
    )


def compressed_image_to_numpy(message: CompressedImage) -> np.ndarray:
    """Return a JPEG or PNG image as (H, W, 3) uint8 RGB."""
    return decode_compressed(message.data, message.format)


def image_from_numpy(image_HWC: np.ndarray, stamp_ns: int, frame_id: str) -> Image:
    """Return an rgb8 message of a (H, W, 3) uint8 RGB image."""
    height, width, channels = image_HWC.shape
    if channels != 3 or image_HWC.dtype != np.uint8:
        raise MessageError(f"image is {image_HWC.dtype} of shape {image_HWC.shape}, expected uint8 (H, W, 3)")
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.header.stamp = stamp_from_ns(stamp_ns)
    message.header.frame_id = frame_id
    message.data = array.array("B", image_HWC.tobytes())  # 50 times faster than to assign the numpy array
    return message


def joint_state_from_numpy(
    names: list[str], positions: np.ndarray, stamp_ns: int, velocities: Sequence[float] | np.ndarray = ()
) -> JointState:
    """Return a message of joint positions (rad; fingers m) and, if known, their velocities per second."""
    message = JointState(name=list(names), position=array.array("d", positions), velocity=array.array("d", velocities))
    message.header.stamp = stamp_from_ns(stamp_ns)
    return message


def pose_to_numpy(message: PoseStamped) -> Pose:
    """Return the pose as it is, unchecked."""
    position, quat = message.pose.position, message.pose.orientation
    return Pose(np.array([position.x, position.y, position.z]), np.array([quat.x, quat.y, quat.z, quat.w]))


def pose_from_numpy(pose: Pose, stamp_ns: int, frame_id: str) -> PoseStamped:
    message = PoseStamped()
    message.header.stamp = stamp_from_ns(stamp_ns)
    message.header.frame_id = frame_id
    position, quat = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = pose.position_m.tolist()
    quat.x, quat.y, quat.z, quat.w = pose.quat_xyzw.tolist()
    return message


def velocity_from_numpy(linear_m_s: np.ndarray, angular_rad_s: np.ndarray) -> Float64MultiArray:
    """Return a velocity as six numbers."""
    return Float64MultiArray(data=[*linear_m_s.tolist(), *angular_rad_s.tolist()])


def twist_to_numpy(message: TwistStamped) -> tuple[np.ndarray, np.ndarray]:
    """Return the linear (3,) m/s and the angular (3,) rad/s velocity, float64."""
    linear, angular = message.twist.linear, message.twist.angular
    velocity = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
    if not np.isfinite(velocity).all():
        raise MessageError(f"twist {velocity.tolist()} is not finite")
    return velocity[:3], velocity[3:]


def twist_from_numpy(linear_m_s: np.ndarray, angular_rad_s: np.ndarray, stamp_ns: int, frame_id: str) -> TwistStamped:
    message = TwistStamped()
    message.header.stamp = stamp_from_ns(stamp_ns)
    message.header.frame_id = frame_id
    linear, angular = message.twist.linear, message.twist.angular
    linear.x, linear.y, linear.z = (float(v) for v in linear_m_s)
    angular.x, angular.y, angular.z = (float(v) for v in angular_rad_s)
    return message
