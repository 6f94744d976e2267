"""The first commands of a new user: run the shipped checkpoint and send it instructions."""

import os
import signal
import subprocess
import sys

import pytest
from harness import LATCHED, START_LIMIT_S
from std_msgs.msg import Bool

from m2distill_policy.bringup import system
from m2distill_policy.bringup.domain import own_domain
from m2distill_policy.bringup.launch_config import SystemLaunchConfig
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.bringup.system import system_nodes
from m2distill_policy.errors import UserError
from m2distill_sim.suites import find_task

SOUP, CHEESE = (find_task("libero_object", task).instruction for task in (0, 1))
INSTRUCT = [sys.executable, "-m", "m2distill_policy.ros.clients.instruct"]


def instruct(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*INSTRUCT, *words], capture_output=True, text=True, timeout=START_LIMIT_S, check=False)


def test_the_starter_follows_known_instructions_and_rejects_others(client, tmp_path):
    client.leave_sensors_to_the_simulator()
    success = []
    client.create_subscription(Bool, "sim/success", lambda message: success.append(message.data), LATCHED)
    config = SystemLaunchConfig(pacing="lockstep", sampling="mode", assets="builtin", initial_state=41, step_limit=300)
    with (
        subprocess.Popen([*INSTRUCT, "--namespace", "nowhere"], stderr=subprocess.PIPE, text=True) as lost,
        NodeProcesses(system_nodes(config), tmp_path) as nodes,
    ):
        client.wait(lambda: client.status and client.status.checkpoint_id, "the policy node", START_LIMIT_S)
        asked = instruct()
        assert (
            asked.returncode == 0
            and asked.stdout.startswith("idle: ")
            and f"  known instruction: {CHEESE}\n" in asked.stdout
        )
        rejected = instruct("sing", "a", "song")
        assert (
            rejected.returncode == 2
            and "the policy does not act, idle: " in rejected.stderr
            and CHEESE in rejected.stderr
        )

        followed = instruct(*SOUP.split())
        assert (followed.returncode, followed.stdout) == (0, f"running: {SOUP}\n"), followed.stderr
        client.wait(lambda: success and success[-1], "the soup in the basket", 240.0)
        stopped = instruct("--stop")
        assert stopped.returncode == 0 and stopped.stdout == "stopped: /policy\n", stopped.stderr
        nodes.check()
        assert "no policy node found" in lost.communicate(timeout=START_LIMIT_S)[1] and lost.returncode == 2


def test_an_instruction_and_a_stop_exclude_each_other():
    rejected = instruct("--stop", "now")
    assert rejected.returncode == 2 and "give an instruction or --stop" in rejected.stderr


def test_a_real_arm_requires_a_checkpoint_of_its_own():
    with pytest.raises(UserError, match="no checkpoint for franka_servo; set the option checkpoint to one"):
        system_nodes(SystemLaunchConfig(arm="franka_servo"))
    assert system.main(["--arm", "franka_servo"]) == 2


def test_a_client_whose_reader_closes_the_pipe_ends_without_a_traceback():
    """As in `m2distill service | head -1`: the client finds no node, and prints to a closed pipe."""
    command = [sys.executable, "-m", "m2distill_training", "service"]
    with (
        own_domain() as alone,
        subprocess.Popen(
            command, env={**os.environ, **alone}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as client,
    ):
        client.stdout.close()
        assert client.stderr.read() == b""
    assert client.returncode == 0


def test_ctrl_c_ends_the_starter_with_status_130(tmp_path):
    command = [sys.executable, "-m", "m2distill_training", "run", "--log-dir", str(tmp_path)]
    with (
        own_domain() as alone,
        subprocess.Popen(
            command, env={**os.environ, **alone}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as run,
    ):
        assert "press Ctrl-C to stop" in run.stdout.readline()
        run.send_signal(signal.SIGINT)
        errors = run.stderr.read()
    assert (run.returncode, errors) == (130, "m2distill: interrupted\n")
