"""Benchmark `bench soak`: memory growth, missed periods and losses of simulator, policy and recorder over hours."""

import json as json_module
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
import torch

from m2distill_policy.bringup.domain import own_domain
from m2distill_policy.bringup.system import NodeProcesses, SystemLaunchConfig, system_nodes
from m2distill_policy.checkpoint import Checkpoint, save_checkpoint
from m2distill_policy.errors import UserError, require_at_least
from m2distill_policy.models import Policy, small
from m2distill_policy.spec import libero_spec
from m2distill_training.bench.measure import against, machine, progress, show
from m2distill_training.data.rosbag.bag_messages import open_bag

COLUMNS = ("name", "value", "unit", "bar", "holds")
INSTRUCTION = "pick up the alphabet soup and place it in the basket"
EPISODE_S = 60
MOST_GROWTH = 1.1  # of a process's memory between the end of the first episode and the end of the last


def bench_soak(json: bool = False, quick: bool = False, minutes: float = 60, folder: Path | None = None) -> None:
    """Run the benchmark and print its rows; `m2distill bench soak --help` describes it. Raises UserError."""
    require_at_least(0, minutes=minutes)
    seconds = 10.0 if quick else 60 * minutes
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        here = Path(scratch)
        spec = libero_spec(64, text_encoder="none", text_width=8)
        torch.manual_seed(0)
        save_checkpoint(
            here / "checkpoint",
            Checkpoint(spec, small(), Policy(small(), spec).state_dict(), {INSTRUCTION: np.ones(8, np.float32)}),
        )
        rows = measure(here, seconds)
    show([row | machine() for row in rows], COLUMNS, json)


def measure(here: Path, seconds: float) -> list[dict]:
    config = SystemLaunchConfig(
        checkpoint=str(here / "checkpoint"), step_limit=0, record=str(here / "episodes"), operator="soak"
    )
    episodes = max(2, round(seconds / EPISODE_S))
    lost: dict[str, int] = {}
    memory: list[dict[str, float]] = []
    with own_domain() as domain, NodeProcesses(system_nodes(config), here / "log", domain) as nodes:
        progress(f"the nodes start; they run for {seconds:g} s")
        command = [
            sys.executable,
            "-m",
            "m2distill_training.bench.ros.soak_client",
            "--instruction",
            INSTRUCTION,
            "--episodes",
            str(episodes),
            "--episode-s",
            str(seconds / episodes),
        ]
        with subprocess.Popen(command, env=nodes.environment, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None  # a pipe
            try:
                counts = _line(client.stdout.readline(), nodes)
                while said := client.stdout.readline():
                    counts = _line(said, nodes)
                    memory.append(
                        {name: psutil.Process(pid).memory_info().rss / 2**20 for name, pid in nodes.pids.items()}
                    )
                    _count_lost(here / "episodes", lost)
                    progress(
                        f"{counts['actions']} actions, {counts['missed']} missed; MB: "
                        + ", ".join(f"{name} {mb:.0f}" for name, mb in memory[-1].items())
                    )
            finally:
                client.kill()
    if not memory:
        raise UserError("no episode was recorded; see the last line above")
    return _rows(seconds, counts, memory, lost)


def _line(said: str, nodes: NodeProcesses) -> dict:
    nodes.check()
    if not said:
        raise UserError("the client stopped; see its last line above")
    return json_module.loads(said)


def _count_lost(episodes: Path, lost: dict[str, int]) -> None:
    """Return the recorder's own counts from the labels of kept episodes, and remove the episodes."""
    for path in [metadata.parent for metadata in episodes.glob("*/metadata.yaml")]:
        with open_bag(path) as bag:
            for topic, numbers in json_module.loads(bag.labels["arrivals"]).items():
                lost[topic] = lost.get(topic, 0) + numbers["lost"]
        shutil.rmtree(path)


def _rows(seconds: float, counts: Mapping, memory: list[dict[str, float]], lost: Mapping[str, int]) -> list[dict]:
    told = {"seconds": seconds, "episodes": len(memory)}

    def row(name: str, value: float, unit: str, most: float | None = None) -> dict:
        bar = {} if most is None else against(value, "<=", most)
        return {"name": name, "value": value, "unit": unit, **bar, **told}

    return [
        row("actions", counts["actions"], "actions"),
        row("missed", counts["missed"], "periods", 0),
        row("longest time without an action", counts["longest_s"], "s"),
        row("instructed again", counts["instructed"] - 1, "times", 0),
        *(
            row(f"{name}: memory at the end", round(memory[-1][name]), "MB", round(MOST_GROWTH * mb))
            | {"first_mb": round(mb)}
            for name, mb in memory[0].items()
        ),
        *(row(f"{topic}: lost", count, "messages", 0) for topic, count in sorted(lost.items())),
    ]
