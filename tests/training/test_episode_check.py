"""What the recorder's `keep` rejects is what the import drops."""

import numpy as np
import pytest
from bag_writer import INSTRUCTION, MS, START_NS, of, robot, write_bag

from m2distill_policy.errors import DataError
from m2distill_policy.recording.episode_check import EpisodeCheck
from m2distill_policy.spec import libero_spec
from m2distill_training.data.rosbag.bag_import import import_bags

SPEC = libero_spec(64, text_encoder="none", text_width=8)
LABELS = {"instruction": INSTRUCTION, "success": "true", "spec": SPEC.to_json(), "arm": "libero_sim"}
STREAMS = ("agentview/image_raw", "wrist/image_raw", "joint_states")


def checked(events) -> str:
    """Return what the check finds in the events of a bag."""
    check = EpisodeCheck(SPEC, STREAMS, ("twist_cmd", "gripper_cmd"))
    for topic, _, message in events:
        name = topic.removeprefix("/")
        if name in STREAMS:
            check.stamped(name, message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)
        elif name == "twist_cmd":
            check.moved(name, np.abs([message.twist.linear.x, message.twist.linear.y, message.twist.linear.z]).max())
        elif name == "gripper_cmd":
            check.gripped(name, message.data)
        elif name == "instruction":
            check.sent(message.data)
    return check.problem(INSTRUCTION)


def dropped(events, tmp_path) -> str:
    try:
        import_bags([write_bag(tmp_path / "bag", events, labels=LABELS)], tmp_path / "out")
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("stream", [*STREAMS, "all"])
@pytest.mark.parametrize("gap_ms", [*range(40, 340, 20), 600])
def test_a_gap_is_rejected_if_and_only_if_it_is_dropped(stream, gap_ms, tmp_path):
    names = STREAMS if stream == "all" else (stream,)
    events = [
        e for e in robot() if e[0].lstrip("/") not in names or not 505 * MS <= e[1] - START_NS < (505 + gap_ms) * MS
    ]
    found, lost = checked(events), dropped(events, tmp_path)
    assert bool(found) == ("observation gap" in lost), (found, lost)


@pytest.mark.parametrize("topic", ["/twist_cmd", "/gripper_cmd", "/wrist/image_raw", "/joint_states"])
def test_a_missing_topic_is_rejected_and_dropped(topic, tmp_path):
    events = [e for e in robot() if e[0] != topic]
    assert checked(events) == f"it has no message on {topic.removeprefix('/')}"
    assert "it has no message on" in dropped(events, tmp_path)


def test_no_motion_and_two_instructions_are_rejected_and_dropped(tmp_path):
    other = [*robot(), ("/instruction", START_NS + 900 * MS, of("std_msgs/String")("wave"))]
    assert "it has 2 instructions" in checked(other) and "it has 2 instructions" in dropped(other, tmp_path / "two")
    still = [e for e in robot() if e[0] not in ("/twist_cmd", "/gripper_cmd") or e[1] == START_NS]
    still = [(t, ns, of("std_msgs/Float64")(0.08)) if t == "/gripper_cmd" else (t, ns, m) for t, ns, m in still]
    still += [
        (t, ns, m.__class__(m.header, m.twist.__class__(m.twist.angular, m.twist.angular)))
        for t, ns, m in robot()
        if t == "/twist_cmd"
    ]
    still.sort(key=lambda event: event[1])
    assert "it has no motion" in checked(still) and "no motion" in dropped(still, tmp_path / "still")
