"""Topics of a recorded episode: the inputs and outputs of a policy with a given spec, and their types.

Names are relative to the robot's namespace, as in docs/ros.md. The recorder subscribes to these topics, and the
importer looks for them in bags of any origin.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from m2distill_policy.spec import PolicySpec

JOINTS, POSE, GRIPPER, INSTRUCTION = "joint_states", "ee_pose", "gripper_cmd", "instruction"
TWIST, TARGET, VELOCITY = "twist_cmd", "target_pose", "velocity_cmd"
OPERATOR_ACTIVE, ACTION, STATUS = "operator_active", "policy/action", "policy/status"
TF, TF_STATIC, TRANSFORMS = "tf", "tf_static", "tf2_msgs/msg/TFMessage"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
NO_TOPICS: Mapping[str, str] = MappingProxyType({})
# Quality of service: SENSOR is best effort; COMMAND is reliable; LATCHED is reliable and keeps the last message.
SENSOR, COMMAND, LATCHED = "sensor", "command", "latched"


@dataclass(frozen=True)
class Topic:
    """One topic of an episode."""

    name: str
    type: str
    qos: str  # SENSOR, COMMAND or LATCHED
    continuous: bool = False  # messages must arrive all the time; silence is reported
    source: str = ""  # the robot's own topic, if it has another name


MOTIONS = {  # the command topic of each output of an arm
    "twist": Topic(TWIST, "geometry_msgs/msg/TwistStamped", COMMAND),
    "pose": Topic(TARGET, "geometry_msgs/msg/PoseStamped", COMMAND),
    "array": Topic(VELOCITY, "std_msgs/msg/Float64MultiArray", COMMAND),
}


def image_topic(camera: str, compressed: bool, topics: Mapping[str, str] = NO_TOPICS) -> Topic:
    """Return the image topic of a camera, raw or compressed; `topics` as `Robot.topics`."""
    raw = f"{camera}/image_raw"
    source = topics.get(raw, "")
    if compressed:
        own = f"{source}/compressed" if source else ""
        return Topic(f"{raw}/compressed", COMPRESSED, SENSOR, continuous=True, source=own)
    return Topic(raw, IMAGE, SENSOR, continuous=True, source=source)


def camera_info(camera: str, topics: Mapping[str, str] = NO_TOPICS) -> Topic:
    """Return the calibration topic of a camera, which is beside its image topic."""
    source = topics.get(f"{camera}/image_raw", "")
    own = f"{source.rpartition('/')[0]}/camera_info" if "/" in source else "camera_info" if source else ""
    return Topic(f"{camera}/camera_info", "sensor_msgs/msg/CameraInfo", SENSOR, source=own)


def joints_topic(topics: Mapping[str, str] = NO_TOPICS, continuous: bool = True) -> Topic:
    """Return the topic of the joint states."""
    return Topic(JOINTS, "sensor_msgs/msg/JointState", SENSOR, continuous, topics.get(JOINTS, ""))


def pose_topic(topics: Mapping[str, str] = NO_TOPICS, continuous: bool = True) -> Topic:
    """Return the topic of the hand's pose."""
    return Topic(POSE, "geometry_msgs/msg/PoseStamped", SENSOR, continuous, topics.get(POSE, ""))


def needs_pose(spec: PolicySpec, output: str) -> bool:
    """Return whether the import of an episode needs the pose of the hand."""
    return spec.observes_hand or output == "pose"


def episode_topics(
    spec: PolicySpec,
    compressed: bool,
    topics: Mapping[str, str] = NO_TOPICS,
    output: str = "twist",
    by_tf: bool = False,
) -> tuple[Topic, ...]:
    """Return all topics of an episode of a robot with this spec.

    Args:
        spec: what a policy of the robot observes.
        compressed: the image transport.
        topics: topics that have other names on the robot, as `Robot.topics`.
        output: the format of its commands. Twists are recorded as well: another operator's device may send them.
        by_tf: TF has the hand's pose. It is recorded too, and if the import needs the pose, the recorder writes it.
    """
    posed = needs_pose(spec, output)
    frames = (Topic(TF, TRANSFORMS, SENSOR), Topic(TF_STATIC, TRANSFORMS, LATCHED))
    return (
        *(image_topic(camera.name, compressed, topics) for camera in spec.cameras),
        *(camera_info(camera.name, topics) for camera in spec.cameras),
        joints_topic(topics, continuous=not spec.observes_hand or bool(spec.gripper_joint_names)),
        *((pose_topic(topics, continuous=posed),) if posed or not by_tf else ()),
        *(frames if by_tf else ()),
        *dict.fromkeys((MOTIONS[output], MOTIONS["twist"])),
        Topic(GRIPPER, "std_msgs/msg/Float64", COMMAND),
        Topic(INSTRUCTION, "std_msgs/msg/String", COMMAND),
        Topic(OPERATOR_ACTIVE, "std_msgs/msg/Bool", COMMAND),
        Topic(ACTION, "m2distill_interfaces/msg/PolicyAction", COMMAND),
        Topic(STATUS, "m2distill_interfaces/msg/PolicyStatus", LATCHED),
    )
