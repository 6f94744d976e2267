"""A policy node that follows a link, as `m2distill promote` and `rollback` move a run's `current`."""

from dataclasses import replace

import numpy as np
from harness import START_LIMIT_S, policy_node

from m2distill_policy.bringup import NodeProcesses
from m2distill_policy.checkpoint import load_checkpoint, save_checkpoint


def test_a_link_that_moves_is_followed(client, checkpoint_path, tmp_path):
    checkpoint = load_checkpoint(checkpoint_path)
    save_checkpoint(tmp_path / "next", replace(checkpoint, instructions=checkpoint.instructions | {
        "bow": np.full(8, 0.5, np.float32)}))
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
