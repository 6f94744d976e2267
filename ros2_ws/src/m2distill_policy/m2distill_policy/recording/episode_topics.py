"""What an episode on disk consists of: the topics that a policy of some spec hears and says, and their types.

Names are relative to the robot's namespace, as in docs/ros.md. The recorder subscribes to these; the importer looks for
them, in bags of any origin.
"""

from dataclasses import dataclass

from m2distill_policy.spec import PolicySpec

JOINTS, POSE, TWIST, GRIPPER, INSTRUCTION = "joint_states", "ee_pose", "twist_cmd", "gripper_cmd", "instruction"
OPERATOR_ACTIVE, ACTION, STATUS = "operator_active", "policy/action", "policy/status"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
SENSOR, COMMAND, LATCHED = "sensor", "command", "latched"  # how a topic is sent


@dataclass(frozen=True)
class Topic:
    name: str
    type: str
    sent: str  # SENSOR: best effort will do; COMMAND: reliable; LATCHED: reliable, the last one kept for latecomers
    watched: bool = False  # whether it has to come all the time


def image_topic(camera: str, compressed: bool) -> Topic:
    if compressed:
        return Topic(f"{camera}/image_raw/compressed", COMPRESSED, SENSOR, watched=True)
    return Topic(f"{camera}/image_raw", IMAGE, SENSOR, watched=True)


def camera_info(camera: str) -> Topic:
    return Topic(f"{camera}/camera_info", "sensor_msgs/msg/CameraInfo", SENSOR)


def episode_topics(spec: PolicySpec, compressed: bool) -> tuple[Topic, ...]:
    return (
        *(image_topic(camera.name, compressed) for camera in spec.cameras),
        *(camera_info(camera.name) for camera in spec.cameras),
        Topic(JOINTS, "sensor_msgs/msg/JointState", SENSOR, watched=True),
        Topic(POSE, "geometry_msgs/msg/PoseStamped", SENSOR),
        Topic(TWIST, "geometry_msgs/msg/TwistStamped", COMMAND),
        Topic(GRIPPER, "std_msgs/msg/Float64", COMMAND),
        Topic(INSTRUCTION, "std_msgs/msg/String", COMMAND),
        Topic(OPERATOR_ACTIVE, "std_msgs/msg/Bool", COMMAND),
        Topic(ACTION, "m2distill_interfaces/msg/PolicyAction", COMMAND),
        Topic(STATUS, "m2distill_interfaces/msg/PolicyStatus", LATCHED),
    )
