"""The terminal of a node closes, as when its window or its connection is closed: the arm is released."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from m2distill_policy.bringup.processes import environment
from m2distill_policy.ros.common.conversions import twist_to_numpy

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
    client.wait(lambda: os.write(master, b"w") and moves(client), "motion")
    client.wait(lambda: os.write(master, b"w") and client.active and client.active[-1], "the operator to be active")
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
