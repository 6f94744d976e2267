"""A policy node that follows a link, such as a run's `current`, which promote and rollback change."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness import START_LIMIT_S, policy_node

from m2distill_policy.bringup.processes import NodeProcesses, command_line
from m2distill_policy.checkpoint import load_checkpoint, save_checkpoint


def test_a_changed_link_is_followed(client, checkpoint_path, tmp_path):
    checkpoint = load_checkpoint(checkpoint_path)
    save_checkpoint(
        tmp_path / "next",
        replace(checkpoint, instructions=checkpoint.instructions | {"bow": np.full(8, 0.5, np.float32)}),
    )
    link, moved = tmp_path / "current", tmp_path / "moved"
    link.symlink_to(checkpoint_path)
    with NodeProcesses([policy_node(link, autostart=True, follow_checkpoint=True)], tmp_path):
        client.wait(lambda: client.status and client.status.checkpoint_id, "the node", START_LIMIT_S)
        old = client.status.checkpoint_id
        moved.symlink_to(tmp_path / "next")
        moved.replace(link)
        client.wait(lambda: client.status.checkpoint_id != old, "the swap")
        assert client.status.previous_checkpoint_id == old
        assert "bow" in client.status.known_instructions
        moved.symlink_to(checkpoint_path)
        moved.replace(link)
        client.wait(lambda: client.status.checkpoint_id == old, "the way back")


def test_a_link_that_changes_during_a_swap_is_followed(client, checkpoint_path, tmp_path):
    checkpoint = load_checkpoint(checkpoint_path)
    link, moved = tmp_path / "current", tmp_path / "moved"

    def move(to: Path) -> None:
        moved.symlink_to(to)
        moved.replace(link)

    ids = {name: save_checkpoint(tmp_path / name, replace(checkpoint, metrics={"name": name})) for name in "abc"}
    go, read = tmp_path / "go", tmp_path / "read"
    go.touch()
    move(tmp_path / "a")
    command = command_line(policy_node(link, autostart=True, follow_checkpoint=True))
    with NodeProcesses([], tmp_path) as nodes:
        node = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("slow_node.py")), str(tmp_path), *command[3:]],
            env=nodes.environment,
        )
        try:
            client.wait(lambda: client.status and client.status.checkpoint_id == ids["a"], "the node", START_LIMIT_S)
            go.unlink()
            read.unlink()
            move(tmp_path / "b")
            client.wait(read.exists, "the reading of b")
            move(tmp_path / "c")
            client.received.clear()
            client.wait(lambda: len(client.of("/diagnostics")) >= 3, "3 s, in which the node looks at the link")
            go.touch()
            client.wait(lambda: client.status and client.status.checkpoint_id == ids["c"], "the swap to c")
        finally:
            node.terminate()
            node.wait()
