"""The recorder as a process, over real DDS: its services, its topic, and its files."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import CAMERAS, KNOWN, LATCHED
from lifecycle_msgs.msg import Transition
from rclpy.parameter import Parameter
from recorder_client import Recorder, recorder_node
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CameraInfo, JointState
from std_msgs.msg import Header

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.spec import PolicySpec

TORN = b"\x00\x01\x00\x00"  # a head, and nothing of the message


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("episodes")


@pytest.fixture(scope="module")
def node(checkpoint_path, directory, tmp_path_factory) -> Iterator[NodeProcesses]:
    with NodeProcesses([recorder_node(checkpoint_path, directory)], tmp_path_factory.mktemp("log")) as nodes:
        yield nodes
        nodes.check()


@pytest.fixture
def recorder(client, node) -> Recorder:
    recorder = Recorder(client)
    recorder.wait_until_up()
    return recorder


def test_a_kept_episode_is_a_standard_bag_with_everything_that_was_sent(client, recorder, directory, checkpoint_path):
    assert not recorder("keep").success
    client.publish_instruction(KNOWN[0])
    client.wait(lambda: "recording" in recorder("start").message, "the start")
    rejected = recorder("start")
    assert not rejected.success and "keep or discard it first" in rejected.message
    sent_before = client.sent
    recorder.record(20)
    sent = client.sent - sent_before
    kept = client.wait(lambda: (answer := recorder("keep")).success and answer, "the instruction to arrive")
    name = kept.message.split()[1].rstrip(":")
    path = Path(name)
    assert path.parent == directory and sorted(p.name for p in path.iterdir()) == [f"{path.name}.mcap", "metadata.yaml"]
    with AnyReader([path]) as bag:
        counts = {c.topic: c.msgcount for c in bag.connections}
        images = [
            bag.deserialize(raw, c.msgtype).data[0] for c, _, raw in bag.messages() if c.topic == "/agentview/image_raw"
        ]
        labels = bag.readers[0].storage.metadata.custom
    assert {counts[f"/{camera}/image_raw"] for camera in CAMERAS} | {counts["/joint_states"]} == {sent}
    assert images == [number % 256 for number in range(sent_before, sent_before + sent)]
    assert {"instruction": KNOWN[0], "operator": "Ada", "success": "true"}.items() <= labels.items()
    assert PolicySpec.from_json(labels["spec"]) == PolicySpec.from_json((checkpoint_path / "spec.json").read_text())
    assert labels["checkpoint_id"] == hashlib.sha256((checkpoint_path / "SHA256SUMS").read_bytes()).hexdigest()
    assert labels["arm"] == "libero_sim" and json.loads(labels["arm_settings"])["linear_gain"] == 1.0
    assert json.loads(labels["arrivals"])["joint_states"]["lost"] == 0


def test_messages_sent_before_keep_are_kept(client, recorder):
    client.publish_instruction(KNOWN[0])
    assert recorder("start").success
    recorder.record(5)
    names = [f"joint {number}" for number in range(40)]
    stamp = client.get_clock().now().to_msg()
    for name in names:  # faster than they are written
        client.joints_pub.publish(JointState(header=Header(stamp=stamp), name=[name]))
    kept = recorder("keep")
    assert kept.success, kept.message
    with AnyReader([Path(kept.message.split()[1].rstrip(":"))]) as bag:
        heard = [bag.deserialize(raw, c.msgtype).name for c, _, raw in bag.messages() if c.topic == "/joint_states"]
    assert [name for name, *others in heard if not others] == names


def test_an_episode_is_labelled_and_discarded_by_the_topic(client, recorder, directory):
    recorder.command("start", lambda: any((directory / "open").glob("*/labels.json")))
    (folder,) = (directory / "open").iterdir()

    def labels() -> dict:
        return json.loads((folder / "labels.json").read_text())

    recorder.command("failure", lambda: labels()["success"] == "false")
    recorder.command("instruction wave at  me", lambda: labels()["instruction"] == "wave at  me")
    recorder.command("discard", lambda: not folder.exists())
    assert (directory / "discarded" / folder.name).is_dir() and not (directory / folder.name).exists()


def test_silence_is_reported_while_recording_and_in_the_response(client, recorder, directory):
    client.sizes["wrist"] = 0
    assert recorder("start").success
    client.sensors.reset()
    client.wait(
        lambda: any(
            "wrist/image_raw: nothing received" in text and "joint_states" not in text
            for text in recorder.diagnostics_of()
        ),
        "the warning",
    )
    client.sensors.cancel()
    rejected = recorder("keep")
    assert not rejected.success and "no message on gripper_cmd, twist_cmd, wrist/image_raw" in rejected.message
    assert recorder("failure").success
    kept = recorder("keep")
    assert kept.success and "wrist/image_raw: nothing received" in kept.message


def test_messages_that_cannot_be_decoded_are_recorded_as_received(client, recorder, node):
    client.publish_instruction(KNOWN[0])
    assert recorder("start").success
    pubs = [
        client.instruction_pub,
        client.create_publisher(PolicyStatus, "policy/status", LATCHED),
        *(client.create_publisher(CameraInfo, f"{camera}/camera_info", 10) for camera in CAMERAS),
    ]
    client.wait(lambda: all(pub.get_subscription_count() for pub in pubs), "its subscriptions")
    for _ in range(20):  # the recorder may discover a best-effort publisher late
        for pub in pubs:
            pub.publish(TORN)
        time.sleep(0.05)
    recorder.record(3)
    kept = recorder("keep")
    assert kept.success, kept.message
    with AnyReader([Path(kept.message.split()[1].rstrip(":"))]) as bag:
        torn = {c.topic for c, _, raw in bag.messages() if raw == TORN}
        assert bag.readers[0].storage.metadata.custom["instruction"] == KNOWN[0]
    assert torn == {"/instruction", "/policy/status", *(f"/{camera}/camera_info" for camera in CAMERAS)}
    node.check()
    assert node.log_path("recorder").read_text().count("cannot be decoded") == 1


def test_low_disk_space_ends_the_episode_and_keeps_it_unlabelled(client, recorder, directory):
    assert recorder("start").success
    (folder,) = (directory / "open").iterdir()
    recorder.record(3)
    client.change_parameters(recorder.parameters, [Parameter("min_free_mib", value=10**8)])
    client.wait((directory / folder.name).exists, "the end of the episode")
    with Reader(directory / folder.name) as bag:
        assert bag.storage.metadata.custom["success"] == "unknown"
    rejected = recorder("start")
    assert not rejected.success and "required are 100000000 (min_free_mib); free some space" in rejected.message
    client.change_parameters(recorder.parameters, [Parameter("min_free_mib", value=10)])


def test_deactivation_keeps_the_open_episode_unlabelled(client, recorder, directory):
    assert recorder("start").success
    (folder,) = (directory / "open").iterdir()
    assert recorder.change(Transition.TRANSITION_DEACTIVATE)
    assert (directory / folder.name / "metadata.yaml").exists()
    rejected = recorder("start")
    assert not rejected.success and "not active" in rejected.message
    assert recorder.change(Transition.TRANSITION_ACTIVATE)
