"""Recorded episodes: bags of any recorder for the import, and unfinished episodes for the recovery."""

import json
import struct

import pytest
from bag_writer import INSTRUCTION, MS, START_NS, TYPES, image, joints, of, twist, write_bag
from damage import ODD, byte_edits, edit_bytes, edit_values, fuzzed, to_json, value_edits
from hypothesis import strategies as st
from reading import Link, Reader
from rosbags.rosbag2 import StoragePlugin
from ruamel.yaml import YAML

from m2distill_policy.errors import DataError
from m2distill_policy.recording.episode import LABELS, OPEN, Recordings
from m2distill_policy.recording.recovery import recover_episodes
from m2distill_policy.spec import libero_spec
from m2distill_training.data.libero.writer import file_names
from m2distill_training.data.rosbag.bag_import import import_bags

SPEC = libero_spec(size_px=8, text_encoder="none", text_width=4)
OURS = {
    "instruction": INSTRUCTION,
    "success": "true",
    "operator": "Ada",
    "spec": SPEC.to_json(),
    "arm": "libero_sim",
    "arrivals": json.dumps({"joint_states": {"lost": 0}}),
}
STORAGES = ("MCAP", "SQLITE3")
TOPICS = {"/instruction": "std_msgs/msg/String", "/joint_states": "sensor_msgs/msg/JointState"}


def events():
    """Return the messages of a quarter of a second, with images of 8 px."""
    found = [("/instruction", 0, of("std_msgs/String")(INSTRUCTION))]
    for step in range(6):
        stamp = START_NS + 50 * step * MS
        found += [
            ("/agentview/image_raw", stamp, image(stamp, step, 8)),
            ("/wrist/image_raw", stamp, image(stamp, 9, 8)),
            ("/joint_states", stamp, joints(stamp, 0.1)),
            ("/gripper_cmd", stamp, of("std_msgs/Float64")(0.08)),
            ("/twist_cmd", stamp + 1, twist(stamp, (0.1, 0.0, 0.0))),
        ]
    return found


def folder_of(path):
    return {str(p.relative_to(path.parent)): p.read_bytes() for p in sorted(path.iterdir())}


@pytest.fixture(scope="module")
def bags(tmp_path_factory):
    """Storage -> files of a valid bag."""
    folder = tmp_path_factory.mktemp("good")
    return {name: folder_of(write_bag(folder / name / "bag", events(), StoragePlugin[name], OURS)) for name in STORAGES}


@pytest.fixture(scope="module")
def importer(tmp_path_factory):
    with Reader(lambda case: import_bags([case / "bag"], case / "out"), tmp_path_factory.mktemp("import")) as reader:
        yield reader


def test_valid_bags_are_accepted(importer, bags):
    assert [importer.judge(files) for files in bags.values()] == ["", ""]


METADATA = "bag/metadata.yaml"


@fuzzed(200, storage=st.sampled_from(STORAGES), edits=byte_edits)
def test_damaged_bytes_of_a_bag(importer, bags, storage, edits):
    files = bags[storage]
    name = next(name for name in files if name != METADATA)
    importer.judge({**files, name: edit_bytes(files[name], edits)})


@fuzzed(60, edits=byte_edits)
def test_damaged_bytes_of_the_metadata(importer, bags, edits):
    importer.judge({**bags["MCAP"], METADATA: edit_bytes(bags["MCAP"][METADATA], edits)})


@fuzzed(60, storage=st.sampled_from(STORAGES), edits=value_edits)
def test_changed_values_of_the_metadata(importer, bags, storage, edits):
    document = YAML(typ="safe").load(bags[storage][METADATA].decode())
    importer.judge({**bags[storage], METADATA: to_json(edit_values(document, edits))})


@pytest.mark.parametrize("name", ["spec", "arrivals"])
@fuzzed(20, edits=value_edits)
def test_changed_values_of_labels(importer, bags, name, edits):
    document = YAML(typ="safe").load(bags["MCAP"][METADATA].decode())
    labels = document["rosbag2_bagfile_information"]["custom_data"]
    labels[name] = to_json(edit_values(json.loads(labels[name]), edits)).decode()
    importer.judge({**bags["MCAP"], METADATA: to_json(document)})


def test_odd_values_of_every_label(importer, bags):
    document = YAML(typ="safe").load(bags["MCAP"][METADATA].decode())
    information = document["rosbag2_bagfile_information"]
    for name in OURS:
        for odd in ODD[::3]:
            labels = {**information["custom_data"], name: odd}
            importer.judge(
                {
                    **bags["MCAP"],
                    METADATA: to_json({"rosbag2_bagfile_information": {**information, "custom_data": labels}}),
                }
            )


@fuzzed(
    40,
    which=st.integers(0, 100),
    odd=st.sampled_from([0.0, -1.0, 1e300, float("nan"), float("inf"), 2**31 - 1, -(2**31), "", "x" * 300, []]),
    where=st.integers(0, 20),
)
def test_odd_values_of_messages(importer, tmp_path_factory, which, odd, where):
    changed = events()
    message = changed[which % len(changed)][2]
    holders = [(message, name) for name in vars(message) if name != "__msgtype__"]
    for holder, name in list(holders):
        value = getattr(holder, name)
        holders += [(value, inner) for inner in getattr(value, "__dataclass_fields__", {}) if inner != "__msgtype__"]
    holder, name = holders[where % len(holders)]
    object.__setattr__(holder, name, odd)
    try:
        files = folder_of(write_bag(tmp_path_factory.mktemp("odd") / "bag", changed, labels=OURS))
    except Exception:  # the odd value cannot be written at all
        return
    importer.judge(files)


@fuzzed(20, instruction=st.text(min_size=1, max_size=400))
def test_an_instruction_of_any_text(importer, bags, instruction):
    document = YAML(typ="safe").load(bags["MCAP"][METADATA].decode())
    document["rosbag2_bagfile_information"]["custom_data"]["instruction"] = instruction
    files = {**bags["MCAP"], METADATA: to_json(document)}
    importer.judge(files)


def test_paths_outside_the_bag(importer, bags):
    files = dict(bags["MCAP"])
    (mcap,) = (name for name in files if name != METADATA)
    (importer.folder / "outside").mkdir(exist_ok=True)
    document = YAML(typ="safe").load(files[METADATA].decode())
    document["rosbag2_bagfile_information"]["relative_file_paths"] = ["../../outside"]
    assert importer.judge({**files, METADATA: to_json(document)})
    for target in ("/dev/zero", "../../outside", "bag.mcap"):
        assert importer.judge({**files, mcap: Link(target)})
        assert importer.judge({**files, METADATA: Link(target)})


# Unfinished episodes, whose recorder was killed


def open_episode(folder):
    with Recordings(folder) as recordings:
        episode = recordings.begin(TOPICS, TYPES, {"operator": "Ada"})
        for number in range(5):
            for _, _, message in [e for e in events() if e[0] in TOPICS][:3]:
                name = next(t for t, kind in TOPICS.items() if kind == message.__msgtype__)
                episode.bag.write(name, number + 1, bytes(TYPES.serialize_cdr(message, message.__msgtype__)))
            episode.bag.flush()
    return {
        f"{OPEN}/a/{'a.mcap' if path.suffix == '.mcap' else path.name}": path.read_bytes()
        for path in episode.bag.folder.iterdir()
    }


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    return open_episode(tmp_path_factory.mktemp("left"))


@pytest.fixture(scope="module")
def recoverer(tmp_path_factory):
    with Reader(recover_episodes, tmp_path_factory.mktemp("recover")) as reader:
        yield reader


MCAP, LABELS_FILE = f"{OPEN}/a/a.mcap", f"{OPEN}/a/{LABELS}"


def test_a_valid_episode_is_recovered(recoverer, left):
    assert sorted(left) == [MCAP, LABELS_FILE] and recoverer.judge(left) == ""


@fuzzed(150, edits=byte_edits)
def test_damaged_bytes_of_an_open_episode(recoverer, left, edits):
    recoverer.judge({**left, MCAP: edit_bytes(left[MCAP], edits)})


@fuzzed(30, edits=value_edits)
def test_changed_labels_of_an_open_episode(recoverer, left, edits):
    recoverer.judge({**left, LABELS_FILE: to_json(edit_values({"operator": "Ada", "success": "true"}, edits))})


def test_foreign_files_beside_an_open_episode(recoverer, left):
    recoverer.judge({**left, f"{OPEN}/a/metadata.yaml": b"x: [", "a/x": b""})
    recoverer.judge({**left, f"{OPEN}/a/metadata.yaml": b"x: ["})
    recoverer.judge({MCAP: Link("/dev/zero")})
    endless = b"\x89MCAP0\r\n" + struct.pack("<BQ", 5, 2**63)
    recoverer.judge({**left, f"{OPEN}/b/b.mcap": b"", f"{OPEN}/c/c.mcap": endless})
    recoverer.judge({**left, OPEN + "/d": Link("..")})


def test_instructions_that_would_share_a_file_are_rejected():
    names = file_names(["open the drawer", "打开抽屉", "关上抽屉", "x" * 300])
    assert len(set(names.values())) == 4 and max(len(name.encode()) for name in names.values()) <= 255
    with pytest.raises(DataError, match="'go!' and 'go'"):
        file_names(["go!", "go"])
