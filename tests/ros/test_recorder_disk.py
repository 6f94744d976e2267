"""A recorder whose disk is full or missing: it reports this and continues, and written messages are recovered."""

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

from m2distill_policy.bringup.processes import NodeProcesses
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
    client.publish_instruction(KNOWN[0])
    return recorder


@contextmanager
def full_disk(pid: int, file: Path) -> Iterator[None]:
    """Limit the length of files of the recorder's process to that of this file."""
    process = psutil.Process(pid)
    before = process.rlimit(SIZE)
    process.rlimit(SIZE, (file.stat().st_size, before[1]))
    yield
    process.rlimit(SIZE, before)


def begin(client, recorder: Recorder, directory: Path) -> Path:
    """Start an episode labelled as a success; return its file when all messages are in it."""
    before = set((directory / "open").iterdir())
    assert recorder("start").success
    (folder,) = set((directory / "open").iterdir()) - before
    recorder.record(10)
    client.wait(lambda: KNOWN[0] in (folder / "labels.json").read_text(), "the instruction")
    assert recorder("success").success
    known = len(recorder.diagnostics_of())
    client.wait(lambda: len(recorder.diagnostics_of()) >= known + 2, "all to be flushed")
    return folder / f"{folder.name}.mcap"


def assert_whole(recovered: RecoveredEpisode) -> None:
    with Reader(recovered.path) as bag:
        labels = bag.storage.metadata.custom
    assert {"instruction": KNOWN[0], "operator": "Ada", "success": "true"}.items() <= labels.items()
    assert recovered.messages >= 30


def test_a_full_disk_ends_the_episode_and_the_recorder_continues(client, recorder, nodes, tmp_path):
    directory = tmp_path / "episodes"
    file = begin(client, recorder, directory)
    with full_disk(nodes.pids["recorder"], file):
        client.sensors.reset()
        client.wait(lambda: "writing to the disk failed" in recorder("success").message, "the end of the episode")
        client.sensors.cancel()
    known = len(recorder.diagnostics_of())
    client.wait(
        lambda: any(
            text.startswith("waiting") and "writing to the disk failed" in text
            for text in recorder.diagnostics_of()[known:]
        ),
        "the diagnosis",
    )
    assert "writing to the disk failed: [Errno 27] File too large" in nodes.log_path("recorder").read_text()
    file = begin(client, recorder, directory)
    with full_disk(nodes.pids["recorder"], file):
        rejected = recorder("keep")
    assert not rejected.success and f"run `m2distill bag recover {directory}`" in rejected.message
    begin(client, recorder, directory)
    assert recorder("keep").success
    assert "no episode is being recorded" in recorder("success").message
    nodes.check()
    nodes.stop()
    recovered = recover_episodes(directory)
    assert len(recovered) == 2
    for episode in recovered:
        assert_whole(episode)


def test_a_missing_disk_ends_the_episode_and_the_recorder_continues(client, recorder, nodes, tmp_path):
    directory = tmp_path / "episodes"
    begin(client, recorder, directory)
    directory.rename(tmp_path / "gone")
    client.wait(lambda: "writing to the disk failed" in recorder("success").message, "the end of the episode")
    assert "0 MiB left" in recorder("start").message
    (tmp_path / "gone").rename(directory)
    begin(client, recorder, directory)
    assert recorder("keep").success
    nodes.check()
    nodes.stop()
    for episode in recover_episodes(directory):
        assert_whole(episode)


def test_a_write_error_at_the_end_of_the_node_is_logged(client, recorder, nodes, tmp_path):
    directory = tmp_path / "episodes"
    file = begin(client, recorder, directory)
    (directory / file.stem).touch()  # in the way
    os.kill(nodes.pids["recorder"], signal.SIGTERM)
    assert psutil.Process(nodes.pids["recorder"]).wait(START_LIMIT_S) == 0
    assert "writing to the disk failed: [Errno 20] Not a directory" in nodes.log_path("recorder").read_text()
    (directory / file.stem).unlink()
    (episode,) = recover_episodes(directory)
    assert_whole(episode)
