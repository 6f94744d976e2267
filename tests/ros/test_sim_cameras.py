"""Cameras of a file outside the packages: the simulator publishes them, and a policy with three views acts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import KNOWN, START_LIMIT_S, Client
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.launch_config import SimLaunchConfig, SystemLaunchConfig
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.bringup.system import sim_nodes, system_nodes
from m2distill_policy.cameras import read_cameras
from m2distill_policy.checkpoint import Checkpoint, save_checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.models import Policy, small
from m2distill_policy.ros.common.conversions import image_to_numpy, stamp_to_ns
from m2distill_policy.spec import libero_spec
from m2distill_sim.assets import find_assets
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.suites import initial_states

SIZES_PX = {"agentview": 64, "wrist": 64, "front": 96}
CAMERAS = [{"name": "agentview"}, {"name": "wrist"}, {"name": "front", "sim_camera": "frontview", "size": 96}]


@pytest.fixture(scope="module")
def camera_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cameras") / "three.json"
    path.write_text(json.dumps({"cameras": CAMERAS}))
    return path


@pytest.fixture(scope="module")
def three_views(camera_file, tmp_path_factory) -> Path:
    """An untrained policy that sees three cameras."""
    torch.manual_seed(0)
    spec = libero_spec(64, text_encoder="none", text_width=8, cameras=read_cameras(camera_file))
    path = tmp_path_factory.mktemp("checkpoints") / "three"
    instructions = {KNOWN[0]: np.ones(8, np.float32)}
    save_checkpoint(path, Checkpoint(spec, small(), Policy(small(), spec).state_dict(), instructions))
    return path


def test_a_policy_with_three_views_acts_on_the_simulators_cameras(client: Client, camera_file, three_views, tmp_path):
    config = SystemLaunchConfig(
        checkpoint=str(three_views),
        assets="builtin",
        initial_state=41,
        image_size_px=64,
        cameras=str(camera_file),
        pacing="lockstep",
        video=str(tmp_path / "episode.mp4"),
    )
    client.leave_sensors_to_the_simulator()
    images: dict[str, list[Image]] = {name: [] for name in SIZES_PX}
    for name in SIZES_PX:
        client.create_subscription(Image, f"{name}/image_raw", images[name].append, qos_profile_sensor_data)
    with NodeProcesses(system_nodes(config), tmp_path / "log") as nodes:
        client.wait_until_active()
        client.wait(lambda: all(images.values()), "an image of each camera", START_LIMIT_S)
        client.instruct(KNOWN[0])
        client.wait_for_state(PolicyStatus.RUNNING)
        client.wait(lambda: len(client.of("policy/action")) >= 5, "actions")
        nodes.check()
    seen = {name: image_to_numpy(received[0]) for name, received in images.items()}
    assert {name: image.shape[:2] for name, image in seen.items()} == {n: (s, s) for n, s in SIZES_PX.items()}
    first_ns = 10**9
    start = {n: image_to_numpy(m) for n, ms in images.items() for m in ms if stamp_to_ns(m.header.stamp) == first_ns}
    sizes = {name: (size, size) for name, size in SIZES_PX.items()}
    with LiberoEnv("libero_object", 0, find_assets("builtin"), sizes, read_cameras(camera_file)) as env:
        expected = env.reset(initial_states("libero_object", 0)[41], seed=0).images
    for name in SIZES_PX:
        np.testing.assert_array_equal(start[name], expected[name])
    assert (tmp_path / "episode.mp4").stat().st_size > 0


def test_a_camera_file_that_cannot_be_read_starts_no_node(tmp_path):
    with pytest.raises(UserError, match="camera file .*absent.yaml cannot be read"):
        sim_nodes(SimLaunchConfig(cameras=str(tmp_path / "absent.yaml")))


def test_a_camera_that_the_simulation_lacks_is_named(tmp_path):
    (tmp_path / "top.yaml").write_text("cameras: [{name: top}]\n")
    config = SimLaunchConfig(cameras=str(tmp_path / "top.yaml"), assets="builtin")
    with NodeProcesses(sim_nodes(config), tmp_path) as nodes, pytest.raises(UserError, match=r"camera top: unknown"):
        while True:
            nodes.check()
