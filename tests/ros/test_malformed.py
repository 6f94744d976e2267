"""20,000 malformed messages on all inputs: no crash, no hang, no motion.

Most are passed to the callbacks in this process, the others over DDS to a running node.
"""

import itertools
import math
from array import array

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from harness import KNOWN, policy_node
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image, JointState

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.action import Hold
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.control.session import PolicySession
from m2distill_policy.observations.image_decoding import ENCODINGS
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.policy.hand_frames import Frames
from m2distill_policy.ros.policy.inputs import Inputs
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS, libero_spec

JOINTS = (*PANDA_JOINTS, *PANDA_FINGERS)
POSITIONS = [0.0, -0.5, 0.1, -2.0, 0.2, 1.5, 0.8, 0.04, 0.04]
NOW_NS = 1_000_000_000_000
SIZE = 16
PER_EXAMPLE, EXAMPLES = 40, 500  # 20,000
OVER_DDS = 400


class NeverActs:
    """Policy that must not be called, because one input is always malformed."""

    def reset(self): ...
    def set_text(self, embedding): ...

    def step(self, observation):
        raise AssertionError(f"acted on {observation}")


NOW = conversions.stamp_from_ns(NOW_NS)
stamps = st.builds(
    Time, sec=st.one_of(st.integers(-(2**31), 994), st.integers(1001, 2**31 - 1)), nanosec=st.integers(0, 2**32 - 1)
)  # long ago, or far in the future
not_finite = st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e39])
junk = st.binary(max_size=64)
dimensions = st.one_of(st.integers(0, 40), st.sampled_from([2**31, 2**32 - 1, 65536, 15, 17]))


def image(stamp=NOW, data=bytes(3 * SIZE * SIZE), **fields) -> Image:
    message = Image(
        **{"height": SIZE, "width": SIZE, "step": 3 * SIZE, "encoding": "rgb8"} | fields, data=array("B", data)
    )
    message.header.stamp = stamp
    return message


bad_images = st.one_of(
    st.builds(image, stamp=stamps),
    st.builds(image, encoding=st.text(max_size=12).filter(lambda e: e not in ENCODINGS)),
    st.builds(image, height=dimensions.filter(lambda v: v != SIZE)),
    st.builds(image, width=dimensions.filter(lambda v: v != SIZE), step=dimensions),
    st.builds(image, step=dimensions.filter(lambda v: v != 3 * SIZE)),
    st.builds(image, data=junk),
    st.builds(
        image,
        height=dimensions,
        width=dimensions,
        step=dimensions,
        data=junk,
        encoding=st.sampled_from(["rgb8", "mono16", "bayer_rggb8", "nv12", "yuv422", "32FC1", "8UC3", ""]),
    ).filter(lambda m: (m.height, m.width) != (SIZE, SIZE)),
)


def joints(stamp=NOW, names=JOINTS, positions=POSITIONS) -> JointState:
    message = JointState(name=list(names), position=array("d", positions))
    message.header.stamp = stamp
    return message


def with_one(positions, index, value):
    return [*positions[:index], value, *positions[index + 1 :]]


bad_joints = st.one_of(
    st.builds(joints, stamp=stamps),
    st.builds(lambda i, v: joints(positions=with_one(POSITIONS, i, v)), st.integers(0, 8), not_finite),
    st.builds(lambda n: joints(positions=POSITIONS[:n]), st.integers(0, 8)),
    st.builds(lambda i: joints(names=(*JOINTS[:i], JOINTS[(i + 1) % 9], *JOINTS[i + 1 :])), st.integers(0, 8)),
)
incomplete_joints = st.one_of(  # valid parts, but never of all joints
    st.builds(lambda n: joints(names=JOINTS[:n], positions=POSITIONS[:n]), st.integers(0, 8)),
    st.builds(
        lambda names: joints(names=names, positions=POSITIONS[: len(names)]), st.lists(st.text(max_size=8), max_size=9)
    ),
)


def pose(stamp=NOW, position=(0.4, 0.0, 0.3), quat=(1.0, 0.0, 0.0, 0.0), frame="panda_link0") -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id = frame
    message.pose.position.x, message.pose.position.y, message.pose.position.z = position
    q = message.pose.orientation
    q.x, q.y, q.z, q.w = quat
    message.header.stamp = stamp
    return message


numbers = st.floats(allow_nan=True, allow_infinity=True)
bad_poses = st.one_of(
    st.builds(pose, stamp=stamps),
    st.builds(
        lambda i, v: pose(position=with_one((0.4, 0.0, 0.3), i, v)),
        st.integers(0, 2),
        st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    ),
    st.builds(
        lambda q: pose(quat=q),
        st.tuples(numbers, numbers, numbers, numbers).filter(lambda q: not abs(math.hypot(*q) - 1.0) < 1e-3),
    ),
    st.builds(lambda f: pose(frame=f), st.text(max_size=8)),
)
malformed = st.one_of(
    st.tuples(st.sampled_from(["agentview", "wrist"]), bad_images),
    st.tuples(st.just("joint_states"), bad_joints),
    st.tuples(st.just("ee_pose"), bad_poses),
)


@pytest.fixture(scope="module")
def inputs(ros):
    node = LifecycleNode("fed", enable_rosout=False)
    entities = ManagedEntities(node)
    session = PolicySession(libero_spec(SIZE), NeverActs(), {"go": np.zeros(1, np.float32)}, use_pose=True)
    frames = Frames("panda_link0", "")
    inputs = Inputs(entities, session, compressed=False, frames=frames, on_input=lambda name, stamp_ns: None)
    inputs.listening = True
    yield inputs, session
    entities.destroy()
    node.destroy_node()


def feed(inputs: Inputs, name: str, message) -> None:
    if name == "joint_states":
        inputs._on_joints(message, {"publication_sequence_number": None})
    elif name == "ee_pose":
        inputs._on_pose(message)
    else:
        inputs._on_image(name, message)


GOOD = {"agentview": image(), "wrist": image(), "joint_states": joints(), "ee_pose": pose()}
BULK = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


def test_the_messages_from_which_the_malformed_ones_are_made_are_valid(inputs):
    inputs, session = inputs
    session.set_instruction("go")
    for name, message in GOOD.items():
        feed(inputs, name, message)
    assert session.why_hold(NOW_NS) == ""


@settings(max_examples=EXAMPLES, **BULK)
@given(batch=st.lists(malformed, min_size=PER_EXAMPLE, max_size=PER_EXAMPLE))
def test_nothing_moves_after_a_malformed_message_among_valid_ones(inputs, batch):
    inputs, session = inputs
    session.set_instruction("go")
    for name, message in GOOD.items():
        feed(inputs, name, message)
    for name, message in batch:
        feed(inputs, name, message)
        assert isinstance(session.tick(NOW_NS), Hold), (name, message)
        feed(inputs, name, GOOD[name])


def test_a_node_that_receives_malformed_messages_holds_reports_why_and_continues(client, checkpoint_path, tmp_path):
    with NodeProcesses([policy_node(checkpoint_path, autostart=True)], tmp_path) as nodes:
        client.wait_until_active()
        client.instruct(KNOWN[0])
        client.wait_for_state(PolicyStatus.HOLDING, "nothing received yet")
        publishers = {**client.image_pubs, "joint_states": client.joints_pub, "ee_pose": client.pose_pub}
        parts = st.tuples(st.just("joint_states"), incomplete_joints)
        sent = itertools.count(1)

        @settings(max_examples=OVER_DDS // 20, **BULK)
        @given(batch=st.lists(malformed | parts, min_size=20, max_size=20), text=st.text(min_size=1, max_size=40))
        def send(batch, text):
            for name, message in batch:
                publishers[name].publish(message)
                client.spinner.spin_once(timeout_sec=0.002)
                next(sent)
            client.instruct(text if text.strip() else "x")

        send()
        assert next(sent) > OVER_DDS
        assert client.of("policy/action") == []
        assert not any(np.any(conversions.twist_to_numpy(twist)) for twist in client.of("twist_cmd"))
        nodes.check()
        client.sensors.reset()
        client.instruct(KNOWN[0])
        client.wait_for_state(PolicyStatus.RUNNING)
