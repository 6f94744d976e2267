"""The simulator in real time: late commands, commands of another clock, and calls without `ros2`."""

import re
import subprocess
import sys

import imageio.v2 as imageio
import numpy as np
import pytest
from harness import LATCHED, START_LIMIT_S, Client
from rclpy.parameter import parameter_value_to_python
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String, UInt32

from m2distill_policy.bringup.launch_config import SimLaunchConfig
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.bringup.system import sim_nodes
from m2distill_policy.ros.clients.service import parameter_value
from m2distill_policy.ros.common import conversions
from m2distill_sim.ros.nodes import sim_node
from m2distill_sim.suites import find_task

CHEESE = find_task("libero_object", 1).instruction
UP = np.array([0.0, 0.0, 0.1])  # m/s


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "m2distill_policy.ros.clients.service", *words],
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S,
        check=False,
    )


class Watcher:
    """Client that receives the simulator's topics and moves its arm."""

    def __init__(self, client: Client):
        client.leave_sensors_to_the_simulator()
        self.client, self.joints, self.tasks, self.over, self.steps = client, [], [], [], []
        client.create_subscription(JointState, "joint_states", self.joints.append, 5)
        client.create_subscription(String, "sim/task", lambda m: self.tasks.append(m.data), LATCHED)
        client.create_subscription(Bool, "sim/episode_over", lambda m: self.over.append(m.data), LATCHED)
        client.create_subscription(UInt32, "sim/steps", lambda m: self.steps.append(m.data), LATCHED)
        self.twists = client.create_publisher(type(conversions.twist_from_numpy(UP, UP, 0, "")), "twist_cmd", 10)
        client.wait(
            lambda: self.joints and self.tasks and self.over and self.twists.get_subscription_count(),
            "the simulator",
            START_LIMIT_S,
        )

    @property
    def now_ns(self) -> int:
        return conversions.stamp_to_ns(self.joints[-1].header.stamp)

    def moves(self, ahead_ns: int = 0) -> float:
        """Return how far (rad, all joints) ten commands move the arm if stamped `ahead_ns` after the observation."""
        before = np.array(self.joints[-1].position)
        for _ in range(10):
            received = len(self.joints)
            stamp_ns = self.now_ns + ahead_ns
            self.twists.publish(conversions.twist_from_numpy(UP, np.zeros(3), stamp_ns, "panda_link0"))
            self.client.wait(lambda received=received: len(self.joints) > received, "a step")
        return float(np.abs(np.array(self.joints[-1].position) - before).sum())


@pytest.fixture
def watcher(client, tmp_path):
    config = SimLaunchConfig(assets="builtin", image_size_px=16, initial_state=0)
    with NodeProcesses(sim_nodes(config), tmp_path) as nodes:
        watcher = Watcher(client)
        watcher.log = nodes.log_path("sim")
        yield watcher
        nodes.check()


def test_late_commands_move_the_arm_but_not_those_of_another_clock(watcher):
    watcher.client.wait(lambda: watcher.now_ns > 32e9, "more than LIBERO's 600 steps without a command", 120.0)
    assert not watcher.over[-1]
    assert watcher.moves(ahead_ns=10**18) < 1e-3, "a stamp that lies ahead would never grow old"
    assert re.search(r"stamped \d{9,10}\.\d s ahead of the simulator's time", watcher.log.read_text())
    assert watcher.moves() > 0.02


def test_service_does_what_ros2_service_call_and_param_set_do(watcher):
    listed = call()
    assert listed.returncode == 0 and "sim/reset" in listed.stdout.splitlines(), listed
    answer = call("sim/reset", "sim/reset", "--set", "task=1", "initial_state=40", "step_limit=5")
    assert (answer.returncode, answer.stdout) == (0, f"{CHEESE}\n{CHEESE}\n"), answer.stderr
    watcher.client.wait(lambda: watcher.over[-1] and watcher.steps, "the end of the short episode")
    assert watcher.steps[-1] == 5 and watcher.tasks[-1] == CHEESE
    assert "over after 5 steps; call ~/reset to start another episode" in watcher.log.read_text()

    for words, complaint in (
        (["sim/reset", "--set", "task=x"], "sim rejected task=x"),
        (["sim/reset", "--set", "initial_state=77"], "sim/reset failed: initial_state is 77"),
        (["sim/rest"], "unknown service 'sim/rest'"),
        (["sim/reset", "--set", "task"], "expected NAME=VALUE"),
        (["--set", "task=1"], "--set requires a service"),
    ):
        rejected = call(*words)
        assert rejected.returncode == 2 and complaint in rejected.stderr, rejected
    assert watcher.tasks[-1] == CHEESE


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("true", True),
        ("0.5", 0.5),
        ("'4'", "4"),
        ("@ada", "@ada"),
        ("'a", "'a"),
        ("2024-01-01", "2024-01-01"),
    ],
)
def test_a_value_that_no_parameter_can_hold_is_a_string(text, value):
    assert parameter_value_to_python(parameter_value(text)) == value


def test_an_invalid_service_name_is_one_line_and_status_2():
    rejected = call("sim/reset,")
    assert rejected.returncode == 2 and rejected.stderr.startswith("m2distill: error: Invalid service name")
    assert rejected.stderr.count("\n") == 1
    assert call("--namespace", "no!where").returncode == 2


def test_the_video_of_an_endless_episode_stops_at_a_bound(make_node, monkeypatch, tmp_path):
    frame = np.zeros((64, 128, 3), np.uint8)
    monkeypatch.setattr(sim_node, "VIDEO_BYTES", 3 * frame.nbytes)
    node = make_node(sim_node.SimNode)
    node._video = str(tmp_path / "film.mp4")
    for _ in range(5):
        node._add_frame(frame)
    node._end_video()
    assert len(imageio.mimread(tmp_path / "film.mp4")) == 3
