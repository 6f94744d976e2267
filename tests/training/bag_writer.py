"""Bags as a robot's topics fill them, written without ROS, with one thing wrong if asked for."""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from m2distill_policy.recording.recovery import CHANNEL, MAGIC, MESSAGE, SCHEMA, _records
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS

INTERFACES = Path(__file__).parents[2] / "ros2_ws" / "src" / "m2distill_interfaces"
TYPES = get_typestore(Stores.ROS2_JAZZY)
TYPES.register(
    get_types_from_msg((INTERFACES / "msg" / "PolicyAction.msg").read_text(), "m2distill_interfaces/msg/PolicyAction")
)
INSTRUCTION = "pick up the soup"
START_NS = 5_000_000_000  # of the stamps
WALL_NS = 1_700_000_000_000_000_000  # of the recording: another clock
MS = 1_000_000
SECONDS = 1.5
HEADER, FOOTER, DATA_END = 1, 2, 15  # kinds of mcap's records
TASK = ((-1.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 0.25))  # directions of motion, one after the other


def of(name: str):
    return TYPES.types[name.replace("/", "/msg/")]


def time_of(stamp_ns: int):
    return of("builtin_interfaces/Time")(stamp_ns // 10**9, stamp_ns % 10**9)


def header(stamp_ns: int, frame_id: str = ""):
    return of("std_msgs/Header")(time_of(stamp_ns), frame_id)


def policy_action(*shown_ns: int):
    """Of a policy that was shown images and joints of these stamps."""
    return of("m2distill_interfaces/PolicyAction")(
        header(max(shown_ns)),
        np.zeros(7, np.float32),
        0,
        np.ones(1, np.float32),
        0.0,
        0.0,
        [],
        INSTRUCTION,
        "",
        [time_of(stamp_ns) for stamp_ns in shown_ns],
    )


def image(stamp_ns: int, value: int, size: int = 64):
    pixels = np.full((size, size, 3), value % 256, np.uint8)
    pixels[:8] = 255 - value % 256  # the upper edge
    return of("sensor_msgs/Image")(header(stamp_ns), size, size, "rgb8", 0, 3 * size, pixels.reshape(-1))


def joints(stamp_ns: int, value: float, names=(*PANDA_FINGERS, *PANDA_JOINTS)):
    positions = np.array([0.03, 0.03, *np.full(7, value)])
    return of("sensor_msgs/JointState")(header(stamp_ns), list(names), positions, np.zeros(0), np.zeros(0))


def joints_in_parts(stamp_ns: int, value: float) -> list:
    """Messages of an arm's and of a gripper's driver, and of one without joints of the policy."""
    parts = [(PANDA_FINGERS, np.full(2, 0.03)), (PANDA_JOINTS, np.full(7, value)), (("wheel",), np.zeros(1))]
    return [
        of("sensor_msgs/JointState")(header(stamp_ns), list(names), positions, np.zeros(0), np.zeros(0))
        for names, positions in parts
    ]


def twist(stamp_ns: int, linear, frame_id: str = "panda_link0"):
    vector = of("geometry_msgs/Vector3")
    return of("geometry_msgs/TwistStamped")(
        header(stamp_ns, frame_id),
        of("geometry_msgs/Twist")(vector(*(float(x) for x in linear)), vector(0.0, 0.0, 0.0)),
    )


def motion(stamp_ns: int) -> tuple[float, ...]:
    """What the operator does then, m/s."""
    return TASK[int((stamp_ns - START_NS) * 1e-9 / SECONDS * len(TASK)) % len(TASK)]


def robot() -> list[tuple[str, int, object]]:
    """Topic, time in ns, message: two cameras at 30 Hz, joints at 100 Hz, commands at 20 Hz, an instruction."""

    def every(period_ms: int) -> range:
        return range(0, round(SECONDS * 1000), period_ms)

    events = [("/instruction", 0, of("std_msgs/String")(INSTRUCTION))]
    for number, ms in enumerate(every(33)):
        stamp = START_NS + ms * MS
        events += [
            ("/agentview/image_raw", stamp, image(stamp, number)),
            ("/wrist/image_raw", stamp, image(stamp, 100 + number)),
        ]
    events += [("/joint_states", START_NS + ms * MS, joints(START_NS + ms * MS, ms / 1000)) for ms in every(10)]
    for ms in every(50):
        stamp = START_NS + ms * MS
        events += [
            ("/gripper_cmd", stamp, of("std_msgs/Float64")(0.08 if ms < 700 else 0.0)),
            ("/twist_cmd", stamp + 1, twist(stamp, motion(stamp))),
        ]
    return sorted(events, key=lambda event: event[1])


def write_bag(
    path: Path,
    events=None,
    storage: StoragePlugin = StoragePlugin.MCAP,
    labels: Mapping[str, str] | None = None,
    change: Callable[[list], list] = lambda events: events,
) -> Path:
    with Writer(path, version=9, storage_plugin=storage) as writer:
        for name, value in (labels or {}).items():
            writer.set_custom_data(name, value)
        connections = {}
        for topic, time_ns, message in change(robot() if events is None else events):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            recorded_ns = WALL_NS + max(0, time_ns - START_NS)
            writer.write(connections[topic], recorded_ns, TYPES.serialize_cdr(message, kind))
    return path


def without_index(path: Path, leave_out: tuple[str, int] = ("", 0)) -> Path:
    """Write the bag's file again without chunks, index and summary, and without the last messages of `leave_out`."""
    (file,) = path.glob("*.mcap")
    records: list[tuple[int, bytes]] = []
    channels: dict[bytes, str] = {}
    with file.open("rb") as source:
        for kind, body in _records(source):
            if kind == DATA_END:
                break
            if kind == CHANNEL:
                channels[body[:2]] = body[8 : 8 + struct.unpack_from("<I", body, 4)[0]].decode()
            if kind in (SCHEMA, CHANNEL, MESSAGE):
                records.append((kind, body))
    topic, missing = leave_out
    places = [i for i, (kind, body) in enumerate(records) if kind == MESSAGE and channels[body[:2]] == topic]
    for place in reversed(places[len(places) - missing :]):
        del records[place]
    profile = struct.pack("<I", 4) + b"ros2" + struct.pack("<I", 0)
    whole = [(HEADER, profile), *records, (DATA_END, bytes(4)), (FOOTER, bytes(20))]
    file.write_bytes(MAGIC + b"".join(struct.pack("<BQ", kind, len(body)) + body for kind, body in whole) + MAGIC)
    return path
