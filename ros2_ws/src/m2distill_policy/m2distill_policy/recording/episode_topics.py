"""Topics of a recorded episode: the inputs and outputs of a policy with a given spec, and their types.

Names are relative to the robot's namespace, as in docs/ros.md. The recorder subscribes to these topics, and the
importer looks for them in bags of any origin.
"""

from dataclasses import dataclass

from m2distill_policy.spec import PolicySpec

JOINTS, POSE, TWIST, GRIPPER, INSTRUCTION = "joint_states", "ee_pose", "twist_cmd", "gripper_cmd", "instruction"
OPERATOR_ACTIVE, ACTION, STATUS = "operator_active", "policy/action", "policy/status"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
# Quality of service: SENSOR is best effort; COMMAND is reliable; LATCHED is reliable and keeps the last message.
SENSOR, COMMAND, LATCHED = "sensor", "command", "latched"


@dataclass(frozen=True)
class Topic:
    """One topic of an episode."""

    name: str
    type: str
    qos: str  # SENSOR, COMMAND or LATCHED
    continuous: bool = False  # messages must arrive all the time; silence is reported


def image_topic(camera: str, compressed: bool) -> Topic:
    """Return the image topic of a camera, raw or compressed."""
    if compressed:
        return Topic(f"{camera}/image_raw/compressed", COMPRESSED, SENSOR, continuous=True)
    return Topic(f"{camera}/image_raw", IMAGE, SENSOR, continuous=True)


def camera_info(camera: str) -> Topic:
    """Return the calibration topic of a camera."""
    return Topic(f"{camera}/camera_info", "sensor_msgs/msg/CameraInfo", SENSOR)


def episode_topics(spec: PolicySpec, compressed: bool) -> tuple[Topic, ...]:
    """Return all topics of an episode of a robot with this spec; `compressed` selects the image transport."""
    return (
        *(image_topic(camera.name, compressed) for camera in spec.cameras),
        *(camera_info(camera.name) for camera in spec.cameras),
        Topic(JOINTS, "sensor_msgs/msg/JointState", SENSOR, continuous=True),
        Topic(POSE, "geometry_msgs/msg/PoseStamped", SENSOR),
        Topic(TWIST, "geometry_msgs/msg/TwistStamped", COMMAND),
        Topic(GRIPPER, "std_msgs/msg/Float64", COMMAND),
        Topic(INSTRUCTION, "std_msgs/msg/String", COMMAND),
        Topic(OPERATOR_ACTIVE, "std_msgs/msg/Bool", COMMAND),
        Topic(ACTION, "m2distill_interfaces/msg/PolicyAction", COMMAND),
        Topic(STATUS, "m2distill_interfaces/msg/PolicyStatus", LATCHED),
    )
