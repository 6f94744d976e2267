"""Import of bags: what is read, from which moment, in which units, and what is rejected with which message."""

import json

import cv2
import h5py
import numpy as np
import pytest
from bag_writer import (
    INSTRUCTION,
    MS,
    SECONDS,
    START_NS,
    image,
    joints,
    joints_in_parts,
    motion,
    of,
    policy_action,
    robot,
    twist,
    without_index,
    write_bag,
)
from rosbags.rosbag2 import StoragePlugin

from m2distill_policy.action import command_to_action
from m2distill_policy.errors import DataError
from m2distill_policy.spec import PANDA_FINGERS, ActionSpec, libero_spec
from m2distill_training.cli import main
from m2distill_training.data.libero.reader import open_libero
from m2distill_training.data.rosbag.bag_import import import_bags

SPEC = libero_spec(64, text_encoder="none", text_width=8)
LABELS = {"instruction": INSTRUCTION, "success": "true", "operator": "Ada", "spec": SPEC.to_json(), "arm": "libero_sim"}
PERIOD_MS = 50


def only_demo(out):
    with open_libero(out / "pick_up_the_soup_demo.hdf5", "before") as file:
        assert file.instruction == INSTRUCTION
        (demo,) = file.demos()
        return demo


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_stock_bag_becomes_steps_of_the_newest_inputs_and_the_commands_of_then(tmp_path, storage):
    (report,) = import_bags([write_bag(tmp_path / "bag", storage=storage)], tmp_path / "out", SPEC)
    demo = only_demo(tmp_path / "out")
    steps = round(SECONDS * 1000) // PERIOD_MS
    assert report.steps == len(demo.action) == steps and report.seconds == SECONDS and not report.dropped
    for step in range(steps):
        ms = step * PERIOD_MS
        assert demo.images["agentview"][step, -1, 0, 0] == ms // 33  # upright, and the newest at that time
        assert demo.images["agentview"][step, 0, 0, 0] == 255 - ms // 33
        assert demo.images["wrist"][step, -1, 0, 0] == 100 + ms // 33
        np.testing.assert_array_equal(demo.joint[step], np.full(7, ms / 1000, np.float32))
        np.testing.assert_array_equal(demo.gripper[step], np.float32([0.03, -0.03]))
        np.testing.assert_allclose(
            demo.action[step],
            command_to_action(ActionSpec(), 20.0, motion(START_NS + ms * MS), np.zeros(3), 0.08 if ms < 700 else 0.0),
            atol=1e-7,
        )
    assert report.rates_hz["joint_states"] == pytest.approx(100, rel=0.01)
    assert report.rates_hz["agentview/image_raw"] == pytest.approx(30.3, rel=0.01)
    (told,) = json.loads((tmp_path / "out/import.json").read_text())
    assert told["demo"] == "demo_0" and told["gaps"] == dict.fromkeys(told["gaps"], 0)
    sheet = cv2.imread(str(tmp_path / "out/images/bag.jpg"))
    assert sheet.shape == (2 * 64 + 18, 8 * 64, 3)


def test_joint_states_in_parts_give_the_same_steps_as_whole_ones(tmp_path):
    parts = [
        ("/joint_states", stamp_ns, message)
        for stamp_ns in range(START_NS, START_NS + round(SECONDS * 1e9), 10 * MS)
        for message in joints_in_parts(stamp_ns, (stamp_ns - START_NS) / 1e9)
    ]
    events = sorted([*(e for e in robot() if e[0] != "/joint_states"), *parts], key=lambda e: e[1])
    for name, given in (("parts", events), ("whole", None)):
        (report,) = import_bags([write_bag(tmp_path / name, labels=LABELS, events=given)], tmp_path / f"{name}_out")
        assert not report.dropped
    parts, whole = only_demo(tmp_path / "parts_out"), only_demo(tmp_path / "whole_out")
    np.testing.assert_array_equal(parts.joint, whole.joint)
    np.testing.assert_array_equal(parts.gripper, whole.gripper)
    np.testing.assert_array_equal(parts.action, whole.action)


def test_an_impossible_jump_of_a_joint_is_a_gap_on_a_real_arm(tmp_path):
    def jump(events: list) -> list:
        later_ns = START_NS + 700 * MS
        return [(e[0], e[1], joints(e[1], 2.0)) if e[0] == "/joint_states" and e[1] > later_ns else e for e in events]

    write_bag(tmp_path / "bag", labels={**LABELS, "arm": "franka_servo"}, change=jump)
    with pytest.raises(DataError, match="observation gap 0.75 s after start: joint_states: panda_joint1 jumps, faster"):
        import_bags([tmp_path / "bag"], tmp_path / "out")


def test_where_a_policy_acted_a_step_is_what_it_was_shown(tmp_path):
    """It acts at 400, 450 .. 600 ms, on joints 10 ms old, the wrist's newest image and the other camera's last but
    one. At 550 ms it names an image that is not in the bag."""
    acted = [
        (
            "/policy/action",
            START_NS + ms * MS + 2,
            policy_action(
                START_NS + ((ms - 10) // 33 - 1) * 33 * MS,
                START_NS + (ms - 10) // 33 * 33 * MS + (ms == 550),
                START_NS + (ms - 10) * MS,
            ),
        )
        for ms in range(400, 601, 50)
    ]
    bag = write_bag(tmp_path / "bag", labels=LABELS, events=sorted([*robot(), *acted], key=lambda e: e[1]))
    (report,) = import_bags([bag], tmp_path / "out")
    demo = only_demo(tmp_path / "out")
    stamps_ms = [*range(0, 351, 50), 390, 440, 490, 540, 590, *range(640, 1491, 50)]
    np.testing.assert_allclose(demo.joint[:, 0], np.array(stamps_ms) // 10 * 10 / 1000, atol=1e-6)
    for step, ms in enumerate(stamps_ms):
        number = ms // 33
        by_policy = ms in (390, 440, 490, 590)
        twist_ms = ms + 10 if by_policy else min((ms + 49) // 50 * 50, 1450)
        assert demo.images["agentview"][step, -1, 0, 0] == number - by_policy
        assert demo.images["wrist"][step, -1, 0, 0] == 100 + number
        np.testing.assert_allclose(demo.action[step, :3], motion(START_NS + twist_ms * MS), atol=1e-7)
    assert report.steps == len(stamps_ms)


def test_a_recorders_bag_brings_its_own_spec_and_labels_and_reports_what_was_lost(tmp_path):
    write_bag(tmp_path / "episodes/a", labels={**LABELS, "arrivals": json.dumps({"joint_states": {"lost": 3}})})
    write_bag(tmp_path / "episodes/b", labels={**LABELS, "instruction": "Pick up the soup."})
    write_bag(tmp_path / "episodes/c", labels={**LABELS, "success": "false"})
    write_bag(tmp_path / "episodes/d", labels={**LABELS, "success": "unknown"})
    reports = import_bags([tmp_path / "episodes"], tmp_path / "out")
    assert [r.demo for r in reports] == ["demo_0", "demo_1", "", ""]
    assert [r.dropped for r in reports[2:]] == [
        "it is labelled a failure",
        "nobody has judged whether it succeeded; --unlabelled takes it all the same",
    ]
    assert "joint_states: 3 lost" in reports[0].line()
    with h5py.File(tmp_path / "out/pick_up_the_soup_demo.hdf5") as file:
        assert dict(file["data/demo_0"].attrs) == {
            "num_samples": 30,
            "bag": "a",
            "operator": "Ada",
            "arm": "libero_sim",
        }
    again = import_bags([tmp_path / "episodes"], tmp_path / "more", unlabelled=True)
    assert [r.demo for r in again] == ["demo_0", "demo_1", "", "demo_2"]


def test_real_arms_receive_less_than_the_policy_means(tmp_path):
    """franka_servo executes a quarter of the translation that LIBERO's controller executes."""
    write_bag(tmp_path / "bag", labels={**LABELS, "arm": "franka_servo"})
    (report,) = import_bags([tmp_path / "bag"], tmp_path / "out")
    assert report.clipped_steps == 20  # 1 and 0.5 m/s are more than the quarter of a full action
    np.testing.assert_allclose(only_demo(tmp_path / "out").action[-1, :3], [0, 0, 1.0], atol=1e-7)


def test_gains_come_from_an_arm_file_or_from_the_settings_that_the_recorder_noted(tmp_path):
    (tmp_path / "arm.yaml").write_text("linear_gain: 0.25\nangular_gain: 0.2\n")
    noted = {**LABELS, "arm": "/gone/arm.yaml", "arm_settings": '{"linear_gain": 0.25, "angular_gain": 0.2}'}
    write_bag(tmp_path / "simulated", labels=LABELS)
    write_bag(tmp_path / "noted", labels=noted)
    import_bags([tmp_path / "simulated"], tmp_path / "given", arm=str(tmp_path / "arm.yaml"))
    import_bags([tmp_path / "noted"], tmp_path / "recorded")
    for out in ("given", "recorded"):
        np.testing.assert_allclose(only_demo(tmp_path / out).action[-1, :3], [0, 0, 1.0], atol=1e-7)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"arm": "/etc/hostname.yaml"}, "unknown arm '/etc/hostname.yaml'"),
        ({"arm_settings": '{"linear_gain": 3}'}, "linear_gain is 3, allowed 0 to 2"),
        ({"arm_settings": '{"linear_gain": 0}'}, "a gain of the arm is 0"),
    ],
)
def test_a_label_cannot_choose_a_file_or_wrong_settings(labels, message, tmp_path):
    write_bag(tmp_path / "bag", labels={**LABELS, **labels})
    with pytest.raises(DataError, match=message):
        import_bags([tmp_path / "bag"], tmp_path / "out")


def test_idleness_at_both_ends_is_cut_off_and_silence_within_stands_still(tmp_path):
    def change(events):
        quiet = [e for e in events if e[0] != "/twist_cmd" or 300 <= (e[1] - START_NS) // MS < 1200]
        return [e for e in quiet if e[0] != "/twist_cmd" or not 500 <= (e[1] - START_NS) // MS < 900]

    (report,) = import_bags([write_bag(tmp_path / "bag", labels=LABELS, change=change)], tmp_path / "out")
    demo = only_demo(tmp_path / "out")
    assert report.idle_steps == 6 + 1 and report.steps == 23
    still = ~demo.action[:, :6].any(axis=1)
    assert report.uncommanded_steps == still.sum() == 3  # 0.4 s without, less what the last command covers


def test_steps_of_an_operator_who_took_over_are_marked(tmp_path):
    taken = [
        ("/operator_active", START_NS + 500 * MS - 2, of("std_msgs/Bool")(True)),
        ("/operator_active", START_NS + 800 * MS - 2, of("std_msgs/Bool")(False)),
    ]
    bag = write_bag(tmp_path / "bag", labels=LABELS, events=sorted([*robot(), *taken], key=lambda e: e[1]))
    (report,) = import_bags([bag], tmp_path / "out")
    with h5py.File(tmp_path / "out/pick_up_the_soup_demo.hdf5") as file:
        marked = np.flatnonzero(file["data/demo_0/intervention"])
    assert report.intervention_steps == 6 and marked.tolist() == list(range(10, 16))


def without(topic):
    return lambda events: [event for event in events if event[0] != topic]


def replaced(topic, make):
    """`make(time_ns, message)` takes the place of the messages on the topic."""
    return lambda events: [(t, ns, make(ns, m) if t == topic else m) for t, ns, m in events]


def leap(message, after_ms, by_ms):
    """Its stamps, from then on."""
    stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    if (stamp - START_NS) // MS >= after_ms:
        stamp += by_ms * MS
    return stamp


def gap(topic, begin_ms, end_ms):
    return lambda events: [e for e in events if e[0] != topic or not begin_ms <= (e[1] - START_NS) // MS < end_ms]


WRONG = {
    "no joints": (without("/joint_states"), "it has no message on joint_states; it has: /agentview/image_raw, "),
    "no camera": (without("/wrist/image_raw"), "it has no message on wrist/image_raw"),
    "no commands": (without("/twist_cmd"), "it has no message on twist_cmd"),
    "no gripper": (without("/gripper_cmd"), "it has no message on gripper_cmd"),
    "a wrong type": (
        replaced("/gripper_cmd", lambda ns, m: of("std_msgs/Float32")(0.0)),
        "gripper_cmd is std_msgs/msg/Float32, expected std_msgs/msg/Float64",
    ),
    "clock back": (
        replaced("/joint_states", lambda ns, m: joints(leap(m, 700, -2000), 0.0)),
        "the clock of joint_states jumps from 5.690 s to 3.700 s",
    ),
    "clock ahead": (
        replaced("/agentview/image_raw", lambda ns, m: image(leap(m, 700, 9000), 0)),
        "the clock of agentview/image_raw jumps from 5.693 s to 14.726 s",
    ),
    "other clock": (
        replaced("/twist_cmd", lambda ns, m: twist(ns + 10**18, (1, 0, 0))),
        "no twist_cmd answers any observation",
    ),
    "torn": (gap("/wrist/image_raw", 500, 1000), "observation gap 0.60 s after start: wrist is more than 100"),
    "small images": (
        replaced("/wrist/image_raw", lambda ns, m: image(ns, 0, size=32)),
        "it does not fit the spec: camera wrist: got 32x32 px, expected 64x64",
    ),
    "other joints": (
        replaced("/joint_states", lambda ns, m: joints(ns, 0.0, (*PANDA_FINGERS, *"abcdefg"))),
        "it does not fit the spec: joint_states lacks ['panda_joint1'",
    ),
    "other frame": (
        replaced("/twist_cmd", lambda ns, m: twist(ns, (1, 0, 0), "tool0")),
        "twist_cmd is in the frame 'tool0', expected 'panda_link0'",
    ),
    "not finite": (replaced("/twist_cmd", lambda ns, m: twist(ns, (np.nan, 0, 0))), "twist_cmd or gripper_cmd is not"),
    "nothing moves": (
        lambda events: replaced("/twist_cmd", lambda ns, m: twist(ns, (0, 0, 0)))(
            replaced("/gripper_cmd", lambda ns, m: of("std_msgs/Float64")(0.08))(events)
        ),
        "no motion",
    ),
    "two robots": (
        lambda events: [*events, *(("/b" + topic, ns, message) for topic, ns, message in events)],
        "/b/instruction and /instruction: more than one robot; name the namespace of one with --namespace",
    ),
    "no robot": (
        lambda events: (
            [(e[0].replace("/joint", "/a/joint"), *e[1:]) for e in events if e[0] != "/instruction"]
            + [("/b/joint_states", START_NS, joints(START_NS, 0.0))]
        ),
        "/a/joint_states and /b/joint_states: more than one robot",
    ),
    "two instructions": (
        lambda events: [*events, ("/instruction", START_NS + 900 * MS, of("std_msgs/String")("wave"))],
        "it has 2 instructions, 'pick up the soup' and 'wave'; one episode shows one task",
    ),
    "nothing at all": (lambda events: [], "it holds no message"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_used_is_named_and_nothing_is_written(tmp_path, wrong):
    change, message = WRONG[wrong]
    bag = write_bag(tmp_path / "bag", labels=LABELS, change=change)
    with pytest.raises(DataError) as rejected:
        import_bags([bag], tmp_path / "out")
    assert str(rejected.value).startswith(f"bag: {message}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [0, 200_000])
@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_bag_that_is_cut_off_is_rejected_beside_a_good_one(tmp_path, storage, size):
    write_bag(tmp_path / "a", labels=LABELS, storage=storage)
    write_bag(tmp_path / "b", labels=LABELS)
    (file,) = (path for path in (tmp_path / "a").iterdir() if path.name != "metadata.yaml")
    file.write_bytes(file.read_bytes()[:size])
    cut, good = import_bags([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert cut.dropped.startswith("it is no complete bag") and "m2distill bag recover" in cut.dropped
    assert good.demo == "demo_0"


def steps_of(bag, out, **options):
    (report,) = import_bags([bag], out, **options)
    with h5py.File(out / report.file) as file:
        return {name: file[f"data/demo_0/{name}"][()] for name in ("actions", "obs/joint_states", "obs/agentview_rgb")}


def equal(one, other) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("labels", [LABELS, {}])
def test_a_file_without_an_index_has_the_same_steps(labels, tmp_path):
    """As `ros2 bag record --storage-preset-profile fastwrite` writes it: no chunks, no index, no summary."""
    options = {"spec": SPEC, "instruction": INSTRUCTION}
    expected = steps_of(write_bag(tmp_path / "a", labels=labels), tmp_path / "out a", **options)
    bag = without_index(write_bag(tmp_path / "b", labels=labels))
    assert equal(steps_of(bag, tmp_path / "out b", **options), expected)


def test_a_message_that_is_counted_and_cannot_be_read_drops_the_episode(tmp_path):
    bag = write_bag(tmp_path / "bag", labels=LABELS)
    write_bag(tmp_path / "good", labels=LABELS)
    without_index(bag, leave_out=("/joint_states", 3))
    lost, good = import_bags([bag, tmp_path / "good"], tmp_path / "out")
    assert "/joint_states is damaged: 147 of 150 messages can be read" in lost.dropped and good.demo


@pytest.mark.parametrize("extra", ["/franka/joint_states", "/left/arm/joint_states", "/twist/joint_states"])
def test_a_topic_of_the_same_name_in_another_namespace_is_not_the_robots(extra, tmp_path):
    expected = steps_of(write_bag(tmp_path / "a", labels=LABELS), tmp_path / "out a")
    other = [(extra, START_NS + ms * MS, joints(START_NS + ms * MS, 9.0)) for ms in range(0, 1500, 10)]
    events = sorted([*robot(), *other], key=lambda e: e[1])
    assert equal(steps_of(write_bag(tmp_path / "b", events, labels=LABELS), tmp_path / "out b"), expected)


def test_one_of_several_robots_is_chosen_by_its_namespace(tmp_path):
    expected = steps_of(write_bag(tmp_path / "a", labels=LABELS), tmp_path / "out a")
    still = [(t, ns, joints(ns, 9.0) if t == "/joint_states" else m) for t, ns, m in robot()]
    events = [("/left" + t, ns, m) for t, ns, m in robot()] + [("/right" + t, ns, m) for t, ns, m in still]
    events += still
    bag = write_bag(tmp_path / "b", sorted(events, key=lambda e: e[1]), labels=LABELS)
    assert equal(steps_of(bag, tmp_path / "left", namespace="/left"), expected)
    assert not equal(steps_of(bag, tmp_path / "right", namespace="right"), expected)
    assert not equal(steps_of(bag, tmp_path / "root", namespace=""), expected)
    with pytest.raises(DataError, match="more than one robot; name the namespace"):
        import_bags([bag], tmp_path / "none")
    only = write_bag(tmp_path / "c", [("/left" + t, ns, m) for t, ns, m in robot()], labels=LABELS)
    with pytest.raises(DataError, match="it has no message on"):
        import_bags([only], tmp_path / "none", namespace="right")


@pytest.mark.parametrize("topic", ["/agentview/image_raw", "/joint_states"])
def test_swapped_messages_are_sorted(topic, tmp_path):
    expected = steps_of(write_bag(tmp_path / "a", labels=LABELS), tmp_path / "out a")
    events = robot()
    places = [place for place, event in enumerate(events) if event[0] == topic][20:22]
    first, second = (events[place] for place in places)
    events[places[0]] = (topic, first[1], second[2])
    events[places[1]] = (topic, second[1], first[2])
    assert equal(steps_of(write_bag(tmp_path / "b", events, labels=LABELS), tmp_path / "out b"), expected)


def test_what_nobody_noted_is_asked_for(tmp_path):
    bag = write_bag(tmp_path / "bag", change=without("/instruction"))
    with pytest.raises(DataError, match="it has no instruction; name it with --instruction"):
        import_bags([bag], tmp_path / "out", SPEC)
    with pytest.raises(DataError, match="it names no spec.*--checkpoint"):
        import_bags([bag], tmp_path / "out", instruction="wave")
    import_bags([bag], tmp_path / "out", SPEC, instruction="Wave!")
    assert (tmp_path / "out/wave_demo.hdf5").exists()
    with pytest.raises(DataError, match="wave_demo.hdf5 exists"):
        import_bags([bag], tmp_path / "out", SPEC, instruction="Wave!")


def test_by_the_command_line(tmp_path, capsys):
    write_bag(tmp_path / "episodes/one", labels=LABELS)
    assert main.run(["import", "bag", str(tmp_path / "episodes"), "--out", str(tmp_path / "out")]) == 0
    assert "one  demo_0: 30 steps, 1.5 s; Hz: " in capsys.readouterr().out
    assert main.run(["import", "bag", str(tmp_path / "out"), "--out", str(tmp_path / "more")]) == 2
    assert "is no bag, and holds none" in capsys.readouterr().err
    assert main.run(["bag", "recover", str(tmp_path / "episodes")]) == 0
    assert "no open episode" in capsys.readouterr().out
    assert main.run(["bag", "recover", str(tmp_path / "absent")]) == 2
