"""The terminal of a node closes, or a signal ends or stops the node: the arm is released."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from harness import run
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool
from teleop_arms import ARM, is_moved, listen

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import environment
from m2distill_policy.ros.common.conversions import twist_to_numpy
from m2distill_policy.safety.arm_presets import PRESETS_FOLDER

IGNORING = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]  # as nohup does, which takes the terminal away too


@pytest.fixture
def terminal(client) -> Iterator[tuple[int, Callable[..., subprocess.Popen]]]:
    """Return the other end of a terminal, which the test closes, and a function that starts a teleop node in it."""
    client.active = []
    client.create_subscription(Bool, "operator_active", lambda m: client.active.append(m.data), 10)
    master, slave = pty.openpty()
    started = []

    def start(*wrapper: str, device: str = "keyboard") -> subprocess.Popen:
        started.append(
            subprocess.Popen(
                [
                    "setsid",
                    "--ctty",
                    *wrapper,
                    sys.executable,
                    "-m",
                    "m2distill_policy.ros.nodes.teleop_node",
                    "--ros-args",
                    "-p",
                    f"device:={device}",
                ],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=os.environ | environment(),
            )
        )
        os.close(slave)
        return started[0]

    yield master, start
    started[0].kill()
    started[0].wait()


def moves(client) -> bool:
    return any(np.any(twist_to_numpy(twist)) for twist in client.of("twist_cmd")[-1:])


@pytest.mark.parametrize(("wrapper", "status"), [((), {0, 2}), (IGNORING, {2})])  # 2: what it read was the end
def test_a_terminal_that_closes_while_a_key_is_held_releases_the_arm(client, terminal, wrapper, status):
    master, start = terminal
    node = start(*wrapper)
    client.wait(lambda: client.count_publishers("twist_cmd"), "the node")

    def is_held() -> bool:
        """Press a key, but not all the time: after a stall of the node, keys count again after a silence."""
        return time.monotonic() % 3 > 0.5 and os.write(master, b"w") and moves(client) and client.active[-1:] == [True]

    client.wait(is_held, "motion by an active operator")
    os.close(master)
    client.wait(lambda: node.poll() is not None, "the node to end")
    client.wait(lambda: not moves(client) and not client.active[-1], "letting go")
    assert node.returncode in status


def test_a_node_under_nohup_ignores_a_hangup(client, terminal):
    master, start = terminal
    node = start(*IGNORING, device="joy")
    joy_pub = client.create_publisher(Joy, "joy", 10)
    client.wait(joy_pub.get_subscription_count, "the node")
    node.send_signal(signal.SIGHUP)
    joy = Joy(axes=[0.0, 1.0, 0.0, 0.0, 0.0, 0.0], buttons=[0, 0, 0, 0, 1, 0])
    client.wait(lambda: joy_pub.publish(joy) or moves(client), "motion")
    node.send_signal(signal.SIGTERM)
    client.wait(lambda: node.poll() is not None and not moves(client), "the end")
    assert node.returncode == 0
    os.close(master)


@pytest.fixture(params=["twist"])
def moving(request, client, tmp_path) -> Iterator[subprocess.Popen]:
    """A teleop node that moves the arm, as a job of this session; the joystick is held all the time.

    The parameter is the output of the arm.
    """
    (tmp_path / "arm.yaml").write_text(f"{ARM}output: {request.param}\n")
    client.moves = is_moved(client, listen(client, request.param))
    client.sensors.reset()
    client.active = []
    client.create_subscription(Bool, "operator_active", lambda m: client.active.append(m.data), 10)
    joy_pub = client.create_publisher(Joy, "joy", 10)
    client.buttons = [0, 0, 0, 0, 1, 0]
    client.create_timer(0.05, lambda: joy_pub.publish(Joy(axes=[0.0, 1.0, 0, 0, 0, 0], buttons=client.buttons)))
    # The tests may run under nohup, which has SIGHUP ignored.
    code = (
        "import os, signal, sys; os.setpgrp(); signal.signal(signal.SIGHUP, signal.SIG_DFL); "
        "from m2distill_policy.ros.nodes.teleop_node import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "--ros-args", "-p", f"arm:={tmp_path / 'arm.yaml'}"]
    process = subprocess.Popen(command, env=os.environ | environment())
    client.wait(lambda: client.moves() and client.active, "motion", 90.0)
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("number", "moving"),
    [
        *((number, "twist") for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGINT)),
        (signal.SIGTERM, "pose"),
        (signal.SIGTERM, "array"),
    ],
    indirect=["moving"],
)
def test_a_signal_that_ends_the_node_releases_the_arm_first(client, moving, number):
    moving.send_signal(number)
    client.wait(lambda: not client.moves() and not client.active[-1], "letting go")
    client.wait(lambda: moving.poll() is not None, "the end")
    assert moving.returncode == 0


@pytest.mark.parametrize("moving", ["twist", "pose", "array"], indirect=True)
def test_ctrl_z_releases_the_arm_before_the_node_is_stopped_and_motion_needs_another_press(client, moving):
    moving.send_signal(signal.SIGTSTP)
    client.wait(lambda: not client.moves() and not client.active[-1], "letting go")
    client.wait(lambda: os.waitid(os.P_PID, moving.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT), "the stop")
    moving.send_signal(signal.SIGCONT)
    client.received.clear()
    until_s = time.monotonic() + 1.0
    client.wait(lambda: time.monotonic() > until_s, "a second after the stop")
    assert not client.moves() and not client.active[-1]  # the deadman has been held all the time
    client.buttons = [0] * 6
    client.wait(lambda: time.monotonic() > until_s + 0.5, "the joystick to be released")
    client.buttons = [0, 0, 0, 0, 1, 0]
    client.wait(lambda: client.moves() and client.active[-1], "motion")


def test_ctrl_z_on_the_starter_stops_the_arm(client, checkpoint_path, tmp_path):
    arm = tmp_path / "arm.yaml"  # a file with the limits of the simulated arm starts no simulator
    arm.write_text((PRESETS_FOLDER / "libero_sim.yaml").read_text())
    code = "import os, sys; os.setpgrp(); from m2distill_policy.bringup.system import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--checkpoint", str(checkpoint_path)]
    command += ["--arm", str(arm), "--log-dir", str(tmp_path)]
    starter = subprocess.Popen(command, env=os.environ | environment())
    try:
        client.wait_until_active()
        client.sensors.reset()
        run(client)
        starter.send_signal(signal.SIGTSTP)
        client.wait_for_state(PolicyStatus.IDLE, "stopped")
        client.wait_for_motion(False)
        assert os.waitid(os.P_PID, starter.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        starter.send_signal(signal.SIGCONT)
        starter.send_signal(signal.SIGINT)
        client.wait(lambda: starter.poll() == 130, "the end")
    finally:
        starter.kill()
        starter.wait()
