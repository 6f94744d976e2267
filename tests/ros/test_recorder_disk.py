"""A recorder whose disk refuses: it says so and goes on, and what has reached the disk comes back with its labels."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from harness import KNOWN, START_LIMIT_S
from recorder_client import Recorder, recorder_node
from rosbags.rosbag2 import Reader

from m2distill_policy.bringup.system import NodeProcesses
from m2distill_policy.recording.recovery import RecoveredEpisode, recover_episodes

SIZE = psutil.RLIMIT_FSIZE


@pytest.fixture
def nodes(client, checkpoint_path, tmp_path) -> Iterator[NodeProcesses]:
    with NodeProcesses([recorder_node(checkpoint_path, tmp_path / "episodes")], tmp_path / "log") as nodes:
        yield nodes


@pytest.fixture
def recorder(client, nodes) -> Recorder:
    recorder = Recorder(client)
    recorder.wait_until_up()
    client.say(KNOWN[0])
    return recorder


@contextmanager
def full_disk(pid: int, file: Path) -> Iterator[None]:
    """No file of this process may become longer than this one is."""
    process = psutil.Process(pid)
    before = process.rlimit(SIZE)
    process.rlimit(SIZE, (file.stat().st_size, before[1]))
    yield
    process.rlimit(SIZE, before)


def begin(client, recorder: Recorder, directory: Path) -> Path:
    """The file of a new episode that the operator has called a success, once all that was sent is in it."""
    before = set((directory / "open").iterdir())
    assert recorder("start").success
    (folder,) = set((directory / "open").iterdir()) - before
    recorder.record(10)
    client.wait(lambda: KNOWN[0] in (folder / "labels.json").read_text(), "the instruction")
    assert recorder("success").success
    told = len(recorder.diagnoses())
    client.wait(lambda: len(recorder.diagnoses()) >= told + 2, "all to be flushed")
    return folder / f"{folder.name}.mcap"


def assert_whole(recovered: RecoveredEpisode) -> None:
    with Reader(recovered.path) as bag:
        labels = bag.storage.metadata.custom
    assert {"instruction": KNOWN[0], "operator": "Ada", "success": "true"}.items() <= labels.items()
    assert recovered.messages >= 30


def test_a_full_disk_ends_the_episode_and_the_recorder_goes_on(client, recorder, nodes, tmp_path):
    directory = tmp_path / "episodes"
    file = begin(client, recorder, directory)
    with full_disk(nodes.pids["recorder"], file):
        client.sensors.reset()
        client.wait(lambda: "the disk refuses" in recorder("success").message, "the end of the episode")
        client.sensors.cancel()
    told = len(recorder.diagnoses())
    client.wait(
        lambda: any(text.startswith("waiting") and "the disk refuses" in text for text in recorder.diagnoses()[told:]),
        "the diagnosis",
    )
    assert "the disk refuses: [Errno 27] File too large" in nodes.log_path("recorder").read_text()
    file = begin(client, recorder, directory)
    with full_disk(nodes.pids["recorder"], file):
        refused = recorder("keep")
    assert not refused.success and f"run `m2distill bag recover {directory}`" in refused.message
    begin(client, recorder, directory)
    assert recorder("keep").success
    assert "no episode is being recorded" in recorder("success").message
    nodes.check()
    nodes.stop()
    recovered = recover_episodes(directory)
    assert len(recovered) == 2
    for episode in recovered:
        assert_whole(episode)


def test_a_disk_that_goes_ends_the_episode_and_the_recorder_goes_on(client, recorder, nodes, tmp_path):
    directory = tmp_path / "episodes"
    begin(client, recorder, directory)
    directory.rename(tmp_path / "gone")
    client.wait(lambda: "the disk refuses" in recorder("success").message, "the end of the episode")
    assert "0 MiB left" in recorder("start").message
    (tmp_path / "gone").rename(directory)
    begin(client, recorder, directory)
    assert recorder("keep").success
    nodes.check()
    nodes.stop()
    for episode in recover_episodes(directory):
        assert_whole(episode)


def test_a_disk_that_refuses_at_the_end_of_the_node_is_told(client, recorder, nodes, tmp_path):
    directory = tmp_path / "episodes"
    file = begin(client, recorder, directory)
    (directory / file.stem).touch()  # in the way
    os.kill(nodes.pids["recorder"], signal.SIGTERM)
    assert psutil.Process(nodes.pids["recorder"]).wait(START_LIMIT_S) == 0
    assert "the disk refuses: [Errno 20] Not a directory" in nodes.log_path("recorder").read_text()
    (directory / file.stem).unlink()
    (episode,) = recover_episodes(directory)
    assert_whole(episode)
