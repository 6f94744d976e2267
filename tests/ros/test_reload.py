"""Another checkpoint for a running node: swapped in without a gap, rolled back, rejected if it is invalid."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import KNOWN, Client, policy_node, run

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.checkpoint import load_checkpoint, save_checkpoint
from m2distill_policy.models import Policy
from m2distill_policy.ros.common.conversions import stamp_to_ns

PERIOD_MS = 50


@pytest.fixture(scope="module")
def other(checkpoint_path, tmp_path_factory) -> Path:
    """The checkpoint of the next stage: other weights, one more instruction, a longer history."""
    checkpoint = load_checkpoint(checkpoint_path)
    torch.manual_seed(1)
    weights = Policy(checkpoint.model_config, checkpoint.spec).state_dict()
    path = tmp_path_factory.mktemp("other") / "step1"
    save_checkpoint(
        path,
        replace(
            checkpoint,
            state_dict=weights,
            spec=replace(checkpoint.spec, history=4),
            instructions=checkpoint.instructions | {"bow": np.full(8, 0.5, np.float32)},
        ),
    )
    return path


@pytest.fixture(scope="module")
def node(checkpoint_path, tmp_path_factory) -> Iterator[NodeProcesses]:
    with NodeProcesses(
        [policy_node(checkpoint_path, autostart=True, sampling="stochastic")], tmp_path_factory.mktemp("log")
    ) as nodes:
        yield nodes
        nodes.check()


@pytest.fixture
def running(client, node) -> Iterator[Client]:
    client.wait_until_active()
    client.sensors.reset()
    run(client)
    yield client
    client.instruct("")
    client.wait_for_state(PolicyStatus.IDLE)


def ids(client: Client) -> list[str]:
    return [id for id, _ in itertools.groupby(action.checkpoint_id for action in client.of("policy/action"))]


def test_a_swap_during_a_run_leaves_no_gap_is_announced_and_can_be_rolled_back(running, checkpoint_path, other):
    old = running.status.checkpoint_id
    running.set_parameter("checkpoint", str(other))
    swapped = running.wait(lambda: running.status if running.status.checkpoint_id != old else None, "the swap")
    assert swapped.state == PolicyStatus.RUNNING and swapped.previous_checkpoint_id == old
    assert list(swapped.known_instructions) == sorted([*KNOWN, "bow"])
    assert swapped.notice == f"reloaded: {swapped.checkpoint_id[:12]} replaces {old[:12]}"
    running.wait(lambda: len(ids(running)) == 2 and len(running.of("policy/action")) > 10, "actions of the new one")

    answer = running.call("rollback")
    assert answer.success and answer.message.startswith(f"rolled back: {old[:12]}")
    running.wait(lambda: len(ids(running)) == 3, "actions of the old one")
    assert ids(running) == [old, swapped.checkpoint_id, old]
    stamps = [stamp_to_ns(t.header.stamp) / 1e6 for t in running.of("twist_cmd") if t.twist.linear.x != 0]
    at_swap = [b - a for a, b in itertools.pairwise(stamps)]
    assert max(at_swap) <= 2 * PERIOD_MS + 5, at_swap  # the stamps of the observations that were answered
    answer = running.result(running.policy_parameters.get_parameters(["checkpoint"]), "the parameter")
    assert answer.values[0].string_value == str(checkpoint_path)
    assert "already" in running.call("reload").message


def bad(kind: str, checkpoint_path: Path, tmp_path: Path) -> str:
    checkpoint, path = load_checkpoint(checkpoint_path), tmp_path / kind
    if kind == "missing":
        return str(path)
    if kind == "another robot":
        spec = replace(checkpoint.spec, joint_names=tuple(f"fr3_joint{i}" for i in range(1, 8)))
        save_checkpoint(path, replace(checkpoint, spec=spec))
    elif kind == "other instructions":
        save_checkpoint(path, replace(checkpoint, instructions={"bow": np.ones(8, np.float32)}))
    elif kind == "overflows":
        checkpoint.state_dict["head.std.bias"].fill_(3.4e38)
        save_checkpoint(path, checkpoint)
    else:
        save_checkpoint(path, checkpoint)
        with (path / "weights.safetensors").open("r+b") as file:
            file.seek(2000)
            file.write(b"damaged")
    return str(path)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("missing", "it is not a directory"),
        ("corrupt", "weights.safetensors does not match SHA256SUMS"),
        ("another robot", "its spec has joint_names ('fr3_joint1'"),
        ("other instructions", "does not know the current instruction"),
        ("overflows", "an action that is not finite"),
    ],
)
def test_an_invalid_checkpoint_is_rejected_and_nothing_changes(kind, expected, running, checkpoint_path, tmp_path):
    path = bad(kind, checkpoint_path, tmp_path)  # meanwhile the sensors, played by this thread, are silent
    before = running.wait_for_state(PolicyStatus.RUNNING)
    running.set_parameter("checkpoint", path)
    running.wait(lambda: expected in running.status.notice, f"the rejection because of {expected!r}")
    assert running.wait_for_state(PolicyStatus.RUNNING).checkpoint_id == before.checkpoint_id
    answer = running.result(running.policy_parameters.get_parameters(["checkpoint"]), "the parameter")
    assert answer.values[0].string_value == str(checkpoint_path)
    running.received.clear()
    running.wait(lambda: len(running.of("policy/action")) >= 3, "the arm to continue")
    assert ids(running) == [before.checkpoint_id]


def test_the_service_responds_after_the_swap(running, checkpoint_path):
    answer = running.call("reload")
    assert answer.success and answer.message.endswith("is already active")
