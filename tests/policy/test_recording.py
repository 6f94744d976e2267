"""Episodes on disk without ROS: crashes of the writer at any moment, full disks, locks and recovery."""

import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from m2distill_policy.errors import UserError
from m2distill_policy.recording.episode import Recordings
from m2distill_policy.recording.recovery import recover_episodes

KILLS = int(os.environ.get("KILLS", "8"))
TOPICS = {"/agentview/image_raw": "sensor_msgs/msg/Image", "/instruction": "std_msgs/msg/String"}

# Records episodes of 20 images, numbered by their first byte, and prints what is finished and flushed.
WRITER = f"""
import sys
from pathlib import Path
import numpy as np
from rosbags.typesys import Stores, get_typestore
from m2distill_policy.recording.episode import Recordings
types = get_typestore(Stores.ROS2_JAZZY)
Image, Header, Time = (types.types[name] for name in
                       ("sensor_msgs/msg/Image", "std_msgs/msg/Header", "builtin_interfaces/msg/Time"))
recordings = Recordings(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    episode = recordings.begin({TOPICS}, types, {{"operator": "Ada"}})
    print("started", episode.name, flush=True)
    for number in range(20):
        pixels = np.full(60_000, number, np.uint8)
        image = Image(Header(Time(0, number), ""), 100, 200, "rgb8", 0, 600, pixels)
        episode.bag.write("/agentview/image_raw", number + 1, types.serialize_cdr(image, "sensor_msgs/msg/Image"))
        if number % 3 == 0:
            episode.bag.flush()
            print("flushed", number, flush=True)
    episode.label(success="true")
    episode.keep()
    print("kept", episode.name, flush=True)
"""


def numbers(path: Path) -> list[int]:
    with AnyReader([path]) as bag:
        assert bag.readers[0].storage.metadata.custom["operator"] == "Ada"
        return [int(bag.deserialize(raw, connection.msgtype).data[0]) for connection, _, raw in bag.messages()]


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_no_kept_episode_and_no_flushed_message(tmp_path):
    rng = random.Random(0)
    for kill in range(KILLS):
        root = tmp_path / str(kill)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True) as writer:
            lines = [writer.stdout.readline() for _ in range(rng.randrange(2, 40))]
            for _ in range(rng.randrange(200_000)):  # somewhere between two lines
                pass
            os.kill(writer.pid, signal.SIGKILL)
            lines = [line.split() for line in [*lines, *writer.stdout] if line.endswith("\n")]
        recovered = {each.name: each for each in recover_episodes(root)}
        assert not any((root / "open").iterdir()) and len(recovered) <= 1
        kept = [rest[0] for word, *rest in lines if word == "kept"]
        for name in kept:
            assert numbers(root / name) == list(range(20))
        started = [rest[0] for word, *rest in lines if word == "started"]
        for name in set(started) - set(kept):  # the open one
            since = lines[lines.index(["started", name]) :]
            flushed = max((int(rest[0]) for word, *rest in since if word == "flushed"), default=-1)
            found = numbers(root / name) if (root / name).exists() else []
            assert found == list(range(len(found))) and len(found) >= flushed + 1


@pytest.mark.parametrize(("cut", "tail"), [(500, b""), (-31, bytes(4096))])  # a crashed machine may leave zeros behind
def test_every_complete_message_of_a_truncated_file_is_recovered(tmp_path, cut, tail):
    types = get_typestore(Stores.ROS2_JAZZY)
    with Recordings(tmp_path) as recordings:
        episode = recordings.begin(TOPICS, types, {})
        for number in range(30):
            episode.bag.write("/agentview/image_raw", number + 1, bytes([number]) * 1000)
        episode.bag.flush()
        path = episode.bag.folder / f"{episode.name}.mcap"
        content = path.read_bytes()
        path.write_bytes(content[: content.index(bytes([20]) * 1000) + cut] + tail)
    (recovered,) = recover_episodes(tmp_path)
    assert recovered.messages == 20
    with Reader(recovered.path) as bag:
        assert [raw[0] for _, _, raw in bag.messages()] == list(range(20))


@contextmanager
def disk_full_after(more_bytes: int, file: Path) -> Iterator[None]:
    """Limit the size of every file to the size of `file` plus `more_bytes`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + more_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 100, 1000])  # bytes; the index needs more
def test_a_full_disk_at_keep_loses_no_message_and_no_label(tmp_path, room):
    with Recordings(tmp_path) as recordings:
        episode = recordings.begin(TOPICS, get_typestore(Stores.ROS2_JAZZY), {"operator": "Ada"})
        for number in range(20):
            episode.bag.write("/agentview/image_raw", number + 1, bytes([number]) * 1000)
        episode.label(success="true")
        episode.bag.flush()
        with disk_full_after(room, episode.bag.folder / f"{episode.name}.mcap"), pytest.raises(OSError):
            episode.keep()
    (recovered,) = recover_episodes(tmp_path)
    with Reader(recovered.path) as bag:
        assert [raw[0] for _, _, raw in bag.messages()] == list(range(20))
        assert bag.storage.metadata.custom == {"schema": "1", "operator": "Ada", "success": "true", "recovered": "true"}
    assert not (recovered.path / "labels.json").exists()


@pytest.mark.parametrize("verb", ["keep", "discard"])
def test_a_full_disk_leaves_no_file_open_and_discarded_episodes_stay_discarded(verb, tmp_path):
    with Recordings(tmp_path) as recordings:
        episode = recordings.begin(TOPICS, get_typestore(Stores.ROS2_JAZZY), {"operator": "Ada"})
        episode.bag.write("/instruction", 1, bytes(12))
        episode.bag.flush()
        episode.bag.write("/agentview/image_raw", 2, os.urandom(9000))
        with disk_full_after(100, episode.bag.folder / f"{episode.name}.mcap"):
            if verb == "discard":
                assert episode.discard() == tmp_path / "discarded" / episode.name
            else:
                with pytest.raises(OSError, match="File too large"):
                    episode.keep()
        assert not [file.path for file in psutil.Process().open_files() if file.path.endswith(".mcap")]
    assert len(recover_episodes(tmp_path)) == (verb == "keep")


def test_a_crash_just_before_the_rename_leaves_a_complete_episode(tmp_path):
    with Recordings(tmp_path) as recordings:
        episode = recordings.begin(TOPICS, get_typestore(Stores.ROS2_JAZZY), {"operator": "Ada"})
        episode.bag.write("/instruction", 1, bytes(12))
        (tmp_path / episode.name).touch()  # the final path is taken
        with pytest.raises(OSError):
            episode.keep()
        (tmp_path / episode.name).unlink()
        episode.label()  # as after a slightly earlier crash
    (recovered,) = recover_episodes(tmp_path)
    assert sorted(path.name for path in recovered.path.iterdir()) == [f"{episode.name}.mcap", "metadata.yaml"]
    with Reader(recovered.path) as bag:
        assert bag.storage.metadata.custom == {"schema": "1", "operator": "Ada"}


def test_the_next_recovery_finishes_an_interrupted_one(tmp_path):
    with Recordings(tmp_path) as recordings:
        episode = recordings.begin(TOPICS, get_typestore(Stores.ROS2_JAZZY), {"operator": "Ada"})
        episode.bag.write("/instruction", 1, bytes(12))
        episode.bag.flush()
    torn = tmp_path / "recovering" / episode.name
    torn.mkdir(parents=True)
    (torn / f"{episode.name}.mcap").write_bytes(b"half")
    (recovered,) = recover_episodes(tmp_path)
    with Reader(recovered.path) as bag:
        assert bag.message_count == 1
        assert bag.storage.metadata.custom == {"schema": "1", "operator": "Ada", "recovered": "true"}
    assert recover_episodes(tmp_path) == []


def test_an_episode_without_messages_is_discarded(tmp_path):
    with Recordings(tmp_path) as recordings:
        name = recordings.begin(TOPICS, get_typestore(Stores.ROS2_JAZZY), {}).name
    (recovered,) = recover_episodes(tmp_path)
    assert recovered.messages == 0 and recovered.path == tmp_path / "discarded" / name and recovered.path.is_dir()


def test_one_recorder_at_a_time_uses_a_folder(tmp_path):
    with Recordings(tmp_path):
        for open_folder in (Recordings, recover_episodes):
            with pytest.raises(UserError, match="another recorder or recovery uses"):
                open_folder(tmp_path)
    with Recordings(tmp_path):
        pass
