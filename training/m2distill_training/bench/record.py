"""Benchmark `bench record`: cost and losses of the recorder with a robot's cameras and joints over ROS 2."""

import json as json_module
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
from rosbags.rosbag2 import Reader

from m2distill_policy.bringup.domain import own_domain
from m2distill_policy.bringup.system import NodeDescription, NodeProcesses
from m2distill_policy.checkpoint import Checkpoint, save_checkpoint
from m2distill_policy.errors import UserError, require_at_least
from m2distill_policy.models import Policy, small
from m2distill_policy.spec import libero_spec
from m2distill_training.bench.measure import against, machine, progress, show

COLUMNS = ("name", "value", "unit", "bar", "holds")
MIB_PER_S = 60  # of two raw cameras of 640x480 at 30 Hz, and a little


def bench_record(json: bool = False, quick: bool = False, seconds: int = 60, folder: Path | None = None) -> None:
    """Run the benchmark and print its rows; `m2distill bench record --help` describes it. Raises UserError."""
    require_at_least(1, seconds=seconds)
    seconds = 5 if quick else seconds
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        here = Path(scratch)
        spec = libero_spec(text_encoder="none", text_width=8)
        save_checkpoint(here / "checkpoint", Checkpoint(spec, small(), Policy(small(), spec).state_dict(), {}))
        rows = measure(here, seconds)
    show([row | machine() for row in rows], COLUMNS, json)


def measure(here: Path, seconds: int) -> list[dict]:
    node = NodeDescription(
        "m2distill_policy",
        "recorder_node",
        "recorder",
        "",
        {"checkpoint": str(here / "checkpoint"), "directory": str(here / "episodes"), "autostart": True},
    )
    with own_domain() as domain, NodeProcesses([node], here / "log", domain) as nodes:
        progress(f"recording {seconds} s, {seconds * MIB_PER_S} MiB")
        recorder = psutil.Process(nodes.pids["recorder"])
        rig = subprocess.Popen(
            [sys.executable, "-m", "m2distill_training.bench.ros.fake_robot", "--seconds", str(seconds)],
            env=nodes.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        with rig:
            assert rig.stdout is not None  # a pipe
            said = rig.stdout.readline()
        nodes.check()
        used = recorder.cpu_times()
    if not said:
        raise UserError("the simulated robot stopped; see its last line above")
    published = json_module.loads(said)["published"]
    (bag_folder,) = (path.parent for path in (here / "episodes").glob("*/metadata.yaml"))
    with Reader(bag_folder) as bag:
        kept = {connection.topic.lstrip("/"): connection.msgcount for connection in bag.connections}
    lost = {topic: count - kept[topic] for topic, count in published.items()}
    share = (used.user + used.system) / seconds  # its start, some tenths of a second, included
    told = {"seconds": seconds}
    return [
        {
            "name": f"{topic} lost of {published[topic]}",
            "value": count,
            "unit": "messages",
            **against(count, "<=", 0),
            **told,
        }
        for topic, count in lost.items()
    ] + [
        {
            "name": "recorder's share of a core",
            "value": round(share, 3),
            "unit": "cores",
            **against(share, "<=", 0.6),
            **told,
        }
    ]
