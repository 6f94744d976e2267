"""The network's inputs over ROS and those that training reads from the recording are equal, bit for bit."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from harness import LATCHED, START_LIMIT_S
from recorder_client import Recorder
from std_msgs.msg import String

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.launch_config import SystemLaunchConfig
from m2distill_policy.bringup.processes import NodeProcesses, command_line
from m2distill_policy.bringup.system import system_nodes
from m2distill_policy.models.batch import to_model_input
from m2distill_policy.spec import PolicySpec
from m2distill_training.data.rosbag.bag_import import import_bags
from m2distill_training.data.store import Store, open_store

STEPS, SIZE_PX = 25, 96  # the cameras' images are larger than the policy's


@pytest.mark.parametrize("pacing", ["lockstep", "real_time"])
def test_every_tensor_of_a_recorded_run_equals_that_of_its_import(client, checkpoint_path, tmp_path, pacing):
    """In real time the node's inputs depend on its timing: it may combine images of two moments, or skip one.

    Steps of the import between those of the node are times at which it held the arm.
    """
    config = SystemLaunchConfig(
        checkpoint=str(checkpoint_path),
        initial_state=41,
        assets="builtin",
        image_size_px=SIZE_PX,
        pacing=pacing,
        step_limit=STEPS if pacing == "lockstep" else 0,
        record=str(tmp_path / "episodes"),
    )
    sim, policy, recorder_node = system_nodes(config)
    tasks = []
    client.leave_sensors_to_the_simulator()
    client.create_subscription(String, "sim/task", lambda m: tasks.append(m.data), LATCHED)
    witnessed = tmp_path / "witnessed"
    witnessed.mkdir()
    with NodeProcesses([sim, recorder_node], tmp_path / "log") as nodes:
        node = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("witness_node.py")),
                str(witnessed),
                *command_line(policy)[3:],
            ],
            env=nodes.environment,
        )
        try:
            recorder = Recorder(client)
            recorder.wait_until_up()
            client.wait(
                lambda: client.status and tasks and client.instruction_pub.get_subscription_count() == 2,
                "all nodes",
                START_LIMIT_S,
            )
            assert recorder("start").success
            received = 8 if pacing == "lockstep" else 80  # the first observation, repeated, or all of a second's
            client.wait(lambda: recorder.numbers("messages") >= received, "a recording")
            client.publish_instruction(tasks[-1])
            client.wait(lambda: len(client.of("policy/action")) > STEPS, "the answers", 60)
            client.publish_instruction("")
            client.wait_for_state(PolicyStatus.IDLE)
            assert recorder("keep").success
        finally:
            node.terminate()
            node.wait()

    (report,) = import_bags([tmp_path / "episodes"], tmp_path / "data")
    spec = PolicySpec.from_json((checkpoint_path / "spec.json").read_text())
    store = open_store(tmp_path / "data" / report.file, spec, "before")
    seen = [np.load(path) for path in sorted(witnessed.iterdir(), key=lambda path: int(path.stem))]
    steps = iter(range(report.steps))
    unfound = [tick for tick, live in enumerate(seen) if not any(is_step(live, store, step) for step in steps)]
    assert not unfound, f"{report}; tick {unfound[0]}: {parts_found(seen[unfound[0]], store)}"
    assert len(seen) > STEPS
    if pacing == "lockstep":
        assert report.steps == len(seen)


def tensors(store: Store, step: int) -> dict[str, np.ndarray]:
    """Return the network's inputs of a step in training."""
    batch = to_model_input(
        {name: images[None, [step]] for name, images in store.images.items()},
        store.joint[None, [step]],
        store.gripper[None, [step]],
        np.zeros((1, 8), np.float32),
    )
    return {
        **{f"image_{name}": images.numpy() for name, images in batch["images"].items()},
        "joint": batch["joint"].numpy(),
        "gripper": batch["gripper"].numpy(),
    }


def is_step(live: Mapping[str, np.ndarray], store: Store, step: int) -> bool:
    """Return whether a step is the node's: while the arm is at rest, a step of a hold has equal tensors."""
    return all(equal_bits(live[name], array) for name, array in tensors(store, step).items()) and np.allclose(
        store.action[step], np.clip(live["action"], -1, 1), rtol=0, atol=1e-6
    )


def equal_bits(live: np.ndarray, imported: np.ndarray) -> bool:
    return (
        imported.dtype == live.dtype == np.float32
        and imported.shape == live.shape
        and imported.tobytes() == live.tobytes()
    )


def parts_found(live: Mapping[str, np.ndarray], store: Store) -> dict[str, list[int]]:
    """Return the steps in which each part of a tick occurs."""
    imported = [tensors(store, step) for step in range(len(store.action))]
    return {
        name: [step for step, arrays in enumerate(imported) if equal_bits(live[name], arrays[name])]
        for name in imported[0]
    }
