"""A recorder that is killed repeatedly: KILLS=50 pytest tests/ros/test_recorder_killed.py"""

import hashlib
import os
import random
import signal
import time
from pathlib import Path

from harness import KNOWN
from recorder_client import Recorder, recorder_node
from rosbags.highlevel import AnyReader

from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.recording.recovery import recover_episodes

KILLS = int(os.environ.get("KILLS", "3"))


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_kill_at_any_moment_changes_no_finished_episode_and_the_open_one_is_recovered(
    client, checkpoint_path, tmp_path
):
    moments = random.Random(0)
    for kill in range(KILLS):
        directory = tmp_path / str(kill)
        with NodeProcesses([recorder_node(checkpoint_path, directory)], tmp_path / "log") as nodes:
            recorder = Recorder(client)
            recorder.command("start", lambda d=directory: any((d / "open").glob("*/labels.json")))
            (labels,) = (directory / "open").glob("*/labels.json")
            recorder.command(f"instruction {KNOWN[0]}", lambda path=labels: KNOWN[0] in path.read_text())
            recorder.record(5)
            (finished,) = recorder.command("keep", lambda d=directory: [p.parent for p in d.glob("*/metadata.yaml")])
            before = contents(finished)
            recorder.command("start", lambda d=directory: any((d / "open").glob("*/labels.json")))
            first = client.sent
            client.sensors.reset()
            until_s = time.monotonic() + moments.uniform(0.2, 2.0)
            client.wait(lambda until_s=until_s: time.monotonic() > until_s, "the moment")
            os.kill(nodes.pids["recorder"], signal.SIGKILL)
            last = client.sent - 1
            client.sensors.cancel()
        assert contents(finished) == before
        (recovered,) = recover_episodes(directory)
        assert not any((directory / "open").iterdir()) and contents(finished) == before
        images = numbers_of_images(recovered.path) if recovered.messages else []
        assert images == [number % 256 for number in range(first, first + len(images))]
        assert last - (first + len(images) - 1) <= 20  # one second at 20 Hz


def numbers_of_images(path: Path) -> list[int]:
    with AnyReader([path]) as bag:
        assert bag.readers[0].storage.metadata.custom["recovered"] == "true"
        return [
            int(bag.deserialize(raw, c.msgtype).data[0])
            for c, _, raw in bag.messages()
            if c.topic == "/agentview/image_raw"
        ]
