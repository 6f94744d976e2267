"""Simulator and policy as two processes in lockstep: the same episode as without ROS, whatever the machine's speed."""

from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from harness import LATCHED, START_LIMIT_S, Client
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from std_msgs.msg import Bool, String, UInt32
from std_srvs.srv import Trigger

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.action import Command, command_to_action
from m2distill_policy.bringup.launch_config import SystemLaunchConfig
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.bringup.system import system_nodes
from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.control.inference import InferencePolicy
from m2distill_policy.control.session import PolicySession
from m2distill_policy.ros.common.conversions import stamp_to_ns
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS
from m2distill_sim.assets import find_assets
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.suites import initial_states

SUITE, TASK, INITIAL_STATE, STEPS, SEED, SIZE_PX = "libero_object", 0, 41, 30, 7, 64


def offline_actions(checkpoint_path: Path) -> list:
    """The raw samples of an episode in one process: LiberoEnv and PolicySession, nothing else."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the node: the order of additions is part of the result
    checkpoint = load_checkpoint(checkpoint_path)
    session = PolicySession(checkpoint.spec, InferencePolicy(checkpoint, "stochastic", SEED), checkpoint.instructions)
    samples = []
    cameras = dict.fromkeys(("agentview", "wrist"), (SIZE_PX, SIZE_PX))
    with LiberoEnv(SUITE, TASK, find_assets("builtin"), cameras) as env:
        session.set_instruction(env.instruction)
        observation = env.reset(initial_states(SUITE, TASK)[INITIAL_STATE], seed=0)
        for step in range(STEPS):
            for camera, image in observation.images.items():
                session.observe_image(camera, image, step)
            fingers = observation.gripper_positions * [1, -1]
            session.observe_joints([*PANDA_JOINTS, *PANDA_FINGERS], [*observation.joint_positions, *fingers], step)
            command = session.tick(step)
            assert isinstance(command, Command), command
            samples.append(command.sample)
            observation = env.step(
                command_to_action(
                    checkpoint.spec.action,
                    checkpoint.spec.rate_hz,
                    command.linear_m_s,
                    command.angular_rad_s,
                    command.gripper_width_m,
                )
            )
    torch.set_num_threads(threads)
    return samples


class Episode:
    """Client of the simulator's topics and services."""

    def __init__(self, client: Client):
        client.leave_sensors_to_the_simulator()
        self.client, self.over, self.success, self.tasks, self.steps = client, [], [], [], []
        client.create_subscription(Bool, "sim/episode_over", lambda m: self.over.append(m.data), LATCHED)
        client.create_subscription(Bool, "sim/success", lambda m: self.success.append(m.data), LATCHED)
        client.create_subscription(UInt32, "sim/steps", lambda m: self.steps.append(m.data), LATCHED)
        client.create_subscription(String, "sim/task", lambda m: self.tasks.append(m.data), LATCHED)
        self._reset = client.create_client(Trigger, "sim/reset")
        self._parameters = AsyncParameterClient(client, "sim")

    def wait_until_up(self) -> None:
        self.client.wait_until_active()
        self.client.wait(lambda: self.over and self.tasks, "the simulator", START_LIMIT_S)

    def reset(self, **parameters) -> Trigger.Response:
        chosen = [Parameter(name, value=value) for name, value in parameters.items()]
        self.client.change_parameters(self._parameters, chosen)
        return self.client.result(self._reset.call_async(Trigger.Request()), "the reset")


@pytest.fixture(scope="module")
def config(checkpoint_path, tmp_path_factory) -> SystemLaunchConfig:
    return SystemLaunchConfig(
        checkpoint=str(checkpoint_path),
        suite=SUITE,
        task=TASK,
        initial_state=INITIAL_STATE,
        assets="builtin",
        image_size_px=SIZE_PX,
        pacing="lockstep",
        sampling="stochastic",
        seed=SEED,
        step_limit=STEPS,
        video=str(tmp_path_factory.mktemp("video") / "first.mp4"),
    )


@pytest.fixture(scope="module")
def sim(config, tmp_path_factory):
    """Both nodes run; the value is the simulator's processes, which a test may stop."""
    sim, policy = system_nodes(config)
    log_dir = tmp_path_factory.mktemp("log")
    with NodeProcesses([policy], log_dir) as policy_process, NodeProcesses([sim], log_dir) as sim_process:
        yield sim_process
        policy_process.check()


def test_an_episode_over_ros_is_the_episode_without_it(client, sim, checkpoint_path):
    episode = Episode(client)
    episode.wait_until_up()
    assert client.of("policy/action") == []
    client.instruct(episode.tasks[-1])
    client.wait(lambda: episode.over[-1] and episode.steps, "the end of the episode", 60)
    assert episode.steps == [STEPS]
    client.wait(lambda: len(client.of("policy/action")) >= STEPS, "all actions")  # topics keep no order among them
    actions = client.of("policy/action")[:STEPS]  # the last observation may be answered as well
    assert [stamp_to_ns(a.header.stamp) for a in actions] == [10**9 + 50_000_000 * step for step in range(STEPS)]
    expected = offline_actions(checkpoint_path)
    np.testing.assert_array_equal([a.action for a in actions], [s.action for s in expected])
    assert [a.mode for a in actions] == [s.mode for s in expected]


def test_reset_applies_another_task_rejects_a_missing_one_and_writes_a_video(client, sim, config):
    episode = Episode(client)
    episode.wait_until_up()
    client.instruct("")
    client.wait_for_state(PolicyStatus.IDLE)
    rejected = episode.reset(task=0, initial_state=77)
    assert not rejected.success and "libero_object task 0 has 50 states (allowed: 0 to 49, or -1)" in rejected.message
    rejected = episode.reset(suite="libero_objects")
    assert not rejected.success and "did you mean 'libero_object'?" in rejected.message
    rejected = episode.reset(suite=SUITE, initial_state=40, video="/dev/null/film.mp4")
    assert not rejected.success and "video: the folder /dev/null is not writable" in rejected.message
    answer = episode.reset(suite=SUITE, task=1, initial_state=40, video="")
    assert answer.success and answer.message == "pick up the cream cheese and place it in the basket"
    client.wait(lambda: episode.tasks[-1] == answer.message and not episode.over[-1], "the new episode")
    frames = imageio.mimread(config.video)
    assert len(frames) == STEPS + 1 and frames[0].shape == (256, 512, 3)


def test_the_policy_holds_when_the_simulator_dies_and_continues_with_the_next_one(client, sim, config, tmp_path):
    episode = Episode(client)
    episode.wait_until_up()
    assert episode.reset(suite=SUITE, task=TASK, step_limit=0).success
    client.instruct(episode.tasks[-1])
    client.wait(lambda: len(client.of("policy/action")) > 5, "actions")
    sim.stop()
    client.wait_for_state(PolicyStatus.HOLDING, "silent for more than 1 s")
    client.wait_for_motion(False)
    count = len(client.of("policy/action"))
    with NodeProcesses(system_nodes(config)[:1], tmp_path):
        client.wait(lambda: len(client.of("policy/action")) > count + 5, "new actions", START_LIMIT_S)
