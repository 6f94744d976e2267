"""A policy that hangs: the arm stops within 150 ms, and the node reports it, responds, reloads and ends."""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import STOP_MS, TRIALS, Client, diagnosed, policy_node, run, stopped

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.parameters import PolicyParameters
from m2distill_policy.bringup.processes import NodeProcesses, command_line
from m2distill_policy.checkpoint import load_checkpoint, save_checkpoint
from m2distill_policy.control.inference import InferencePolicy
from m2distill_policy.errors import PolicyTimeoutError
from m2distill_policy.ros.policy import checkpoint_reloader
from m2distill_policy.safety.limits import SafetyLimits

REASON = "the policy has not answered within 0.12 s"
END_LIMIT_S = 10.0  # what launch files and NodeProcesses wait after SIGINT


@contextlib.contextmanager
def hanging(client: Client, way: str, checkpoint: Path, log: Path) -> Iterator[subprocess.Popen]:
    """A running node with the default limits; its policy hangs when the first joint moves."""
    node = policy_node(checkpoint, arm="unknown", sampling="mode", autostart=True)
    command = [sys.executable, str(Path(__file__).with_name("hanging_node.py")), way, *command_line(node)[3:]]
    client.positions[0] = 0.0
    with subprocess.Popen(command, env=NodeProcesses([], log).environment) as process:
        try:
            client.wait_until_active()
            client.sensors.reset()
            run(client)
            yield process
        finally:
            process.kill()
    client.received.clear()
    client.wait(lambda: not client.count_publishers("twist_cmd"), "the node to be forgotten")


def stop_ms(client: Client) -> float:
    """Return the time from the stamp of the observation that causes the hang to that of the zero command."""
    client.received.clear()
    client.positions[0], sent = 0.6, client.sent
    client.wait(lambda: client.sent > sent, "what it hangs on")
    since_ns = client.sent_ns["wrist"]
    return (client.wait(lambda: stopped(client, since_ns), "the zero command") - since_ns) / 1e6


@pytest.mark.parametrize("way", ["waits", "computes"])
def test_a_policy_that_hangs(way, client, checkpoint_path, tmp_path):
    times_ms = []
    while not times_ms or (times_ms[-1] > STOP_MS and len(times_ms) < TRIALS):  # the node is judged, not the machine
        with hanging(client, way, checkpoint_path, tmp_path) as node:
            times_ms.append(stop_ms(client))
            client.wait_for_state(PolicyStatus.HOLDING, REASON)
            client.wait(lambda: diagnosed(client, REASON), "diagnostics with the reason")
            commands = len(client.of("policy/action"))
            assert client.call("stop").success
            client.wait_for_state(PolicyStatus.IDLE, "stopped")
            assert client.call("reset_fault").message == "there was no fault"
            assert client.call("start").success
            client.wait_for_state(PolicyStatus.HOLDING, REASON)
            client.wait_for_motion(False)
            assert len(client.of("policy/action")) == commands
            node.send_signal(signal.SIGINT)
            assert node.wait(END_LIMIT_S) == 0
    assert times_ms[-1] <= STOP_MS, times_ms


def test_another_checkpoint_takes_over_from_a_policy_that_hangs(client, checkpoint_path, tmp_path):
    other = load_checkpoint(checkpoint_path)
    other.state_dict["head.mean.bias"].add_(0.01)
    save_checkpoint(tmp_path / "other", other)
    with hanging(client, "waits", checkpoint_path, tmp_path):
        client.set_parameter("checkpoint", str(tmp_path / "other"))
        client.wait(lambda: client.status.previous_checkpoint_id, "the swap")
        stop_ms(client)
        client.wait_for_state(PolicyStatus.HOLDING, REASON)
        client.positions[0] = 0.0
        sent = client.sent
        client.wait(lambda: client.sent > sent + 5, "joints at which no policy hangs")
        assert client.call("rollback").success
        client.wait_for_state(PolicyStatus.RUNNING)
        client.wait_for_motion(True)


def test_a_checkpoint_that_hangs_during_validation_is_rejected(checkpoint_path, monkeypatch):
    monkeypatch.setattr(checkpoint_reloader, "VALIDATION_TIMEOUT_S", 0.2)
    monkeypatch.setattr(InferencePolicy, "step", lambda policy, observation: threading.Event().wait())
    loaded = checkpoint_reloader.load(str(checkpoint_path), PolicyParameters(), SafetyLimits())
    with pytest.raises(PolicyTimeoutError):
        checkpoint_reloader.try_out(loaded, [])
