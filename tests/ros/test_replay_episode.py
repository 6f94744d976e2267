"""Replay of a recorded episode over real ROS 2: near the recorded path, and below stop, fault and operator."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from harness import LATCHED, START_LIMIT_S, Client, policy_node
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeDescription, NodeProcesses
from m2distill_policy.recording.motion import RecordedMotion, save_motion
from m2distill_policy.ros.common.conversions import twist_to_numpy
from m2distill_sim.assets import find_assets
from m2distill_training.data.motions import read_motion
from m2distill_training.experiments.collect import collect
from m2distill_training.experiments.replay_scene import choose_scene

TASK, EXACT_RAD = 1, 1e-4  # in lockstep the simulator repeats the episode


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory) -> Path:
    """One disturbed demonstration; its file also has what was added to the actions."""
    folder = tmp_path_factory.mktemp("demos")
    assets = find_assets("builtin")
    (file,) = collect("libero_object", (TASK,), 1, folder, workers=1, size_px=16, assets=assets, progress=False)
    return file


def test_the_scene_of_an_episode_is_found_by_its_task_and_its_first_state(demonstration):
    source = read_motion(demonstration, "", 0.2)
    assert choose_scene(source, None, None, None) == ("libero_object", TASK, 0)
    assert choose_scene(source, "libero_goal", 3, 7) == ("libero_goal", 3, 7)


def test_the_command_replays_a_demonstration_to_its_end_near_the_recorded_path(ros, demonstration, tmp_path):
    """In lockstep the last position is the recorded one; the simulator reports success as it did then."""
    node = Client()
    joints, success = [], []
    node.leave_sensors_to_the_simulator()
    node.create_subscription(JointState, "joint_states", lambda m: joints.append(np.array(m.position)), 1000)
    node.create_subscription(Bool, "sim/success", lambda m: success.append(m.data), LATCHED)
    command = [Path(sys.executable).with_name("m2distill"), "replay", demonstration, "--pacing", "lockstep"]
    command += ["--assets", "builtin", "--image-size-px", "16", "--log-dir", tmp_path]
    with (tmp_path / "out").open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        node.wait(lambda: process.poll() is not None, "the end of the replay", 2 * START_LIMIT_S)
    text = (tmp_path / "out").read_text()
    assert process.returncode == 0, text
    with h5py.File(demonstration, "r") as file:
        recorded = file["data/demo_0/obs/joint_states"][:]
    assert f"scene: libero_object task {TASK}, initial state 0" in text
    assert f"the recording has ended after {len(recorded)} steps; the joints stayed within " in text
    assert success[-1]
    path = np.array([positions[:7] for positions in joints])
    nearest = [np.abs(path - angles).max(axis=1).min() for angles in recorded]
    assert max(nearest) < EXACT_RAD, max(nearest)
    node.destroy_node()


class Replay:
    """Simulator and policy node with a motion, in lockstep, and the client of `m2distill replay` as a process."""

    def __init__(self, client: Client, motion: RecordedMotion, nodes: NodeProcesses):
        self.client, self.motion, self.nodes = client, motion, nodes
        client.leave_sensors_to_the_simulator()
        self.reset_client = client.create_client(Trigger, "sim/reset")
        self.operator_pub = client.create_publisher(Bool, "operator_active", 10)

    def reset(self) -> None:
        """Put the arm and the objects to the beginning."""
        assert self.client.ask(self.reset_client, Trigger.Request(), "a reset").success

    def begin(self) -> None:
        """Reset the simulator, and activate the node again, which begins the motion again."""
        assert self.client.transition(Transition.TRANSITION_DEACTIVATE)
        self.reset()
        assert self.client.transition(Transition.TRANSITION_ACTIVATE)
        self.client.received.clear()

    def start(self) -> subprocess.Popen:
        """Start the client and wait until the arm has moved for some steps."""
        command = [sys.executable, "-m", "m2distill_policy.ros.clients.replay", self.motion.text]
        process = subprocess.Popen(command, env=self.nodes.environment, stdout=subprocess.PIPE, text=True)
        self.client.wait(lambda: len(self.client.of("policy/action")) > 20, "motion", START_LIMIT_S)
        return process

    def end_of(self, process: subprocess.Popen) -> str:
        """Wait until the client has ended with status 1, and nothing moves; return what it printed."""
        self.client.wait(lambda: process.poll() is not None, "the end of the replay")
        line = process.stdout.read()
        process.stdout.close()
        assert process.returncode == 1, line
        count = len(self.client.of("policy/action"))
        assert count < len(self.motion.action)
        for _ in range(5):
            self.client.spinner.spin_once(timeout_sec=0.1)
        assert len(self.client.of("policy/action")) == count
        assert not np.any(twist_to_numpy(self.client.of("twist_cmd")[-1]))
        return line


@pytest.fixture(scope="module")
def replay(ros, demonstration, tmp_path_factory) -> Iterator[Replay]:
    folder = tmp_path_factory.mktemp("replay")
    motion = read_motion(demonstration, "demo_0", 0.2).motion
    save_motion(folder / "motion", motion)
    shared = {"pacing": "lockstep", "use_sim_time": True}
    sim = {"assets": "builtin", "task": TASK, "image_size_px": 16, **shared}
    descriptions = [
        NodeDescription("m2distill_sim", "sim_node", "sim", "", sim),
        policy_node(folder / "motion", autostart=True, **shared),
    ]
    client = Client()
    with NodeProcesses(descriptions, folder / "log") as nodes:
        replay = Replay(client, motion, nodes)
        client.wait_until_active()
        yield replay
        nodes.check()
    client.destroy_node()


def test_a_stop_ends_the_replay(replay):
    replay.begin()
    process = replay.start()
    replay.client.instruct("")
    assert "it was stopped" in replay.end_of(process)
    assert replay.client.status.state == PolicyStatus.IDLE


def test_a_pause_holds_the_replay_and_a_start_continues_it(replay):
    replay.begin()
    client, steps = replay.client, len(replay.motion.action)
    client.instruct(replay.motion.text)
    client.wait(lambda: len(client.of("policy/action")) > 20, "motion")
    assert client.call("pause").success
    client.wait_for_state(PolicyStatus.PAUSED)
    assert len(client.of("policy/action")) < steps
    assert client.call("start").success
    client.wait_for_state(PolicyStatus.HOLDING, "the recording has ended")
    assert len(client.of("policy/action")) == steps  # each action once
    client.instruct("")
    client.wait_for_state(PolicyStatus.IDLE)


def test_an_operator_takes_the_arm_from_the_replay(replay):
    replay.begin()
    process = replay.start()
    replay.operator_pub.publish(Bool(data=True))
    assert "an operator has taken over" in replay.end_of(process)
    assert replay.client.status.state == PolicyStatus.OPERATOR
    replay.operator_pub.publish(Bool(data=False))
    replay.client.wait_for_state(PolicyStatus.IDLE)  # not PAUSED: there is nothing left to continue


def test_an_arm_that_is_elsewhere_is_a_fault_that_ends_the_replay(replay):
    replay.begin()
    process = replay.start()
    client = replay.client
    client.wait(lambda: len(client.of("policy/action")) > len(replay.motion.action) // 2, "half of the episode")
    replay.reset()  # the arm jumps to the beginning
    assert "rad from the recording at step" in replay.end_of(process)
    assert client.status.state == PolicyStatus.FAULT
    assert client.call("reset_fault").success
    client.wait_for_state(PolicyStatus.IDLE)
