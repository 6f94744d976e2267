"""What the policy saw over ROS, tick by tick, and what training gets out of the recording: equal, bit for bit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from harness import LATCHED, START_LIMIT_S
from recorder_client import Recorder
from std_msgs.msg import Bool, String

from m2distill_policy.bringup import NodeProcesses, SystemConfig, command_line, system
from m2distill_policy.observation_tensors import to_model_input
from m2distill_policy.spec import PolicySpec
from m2distill_training.data.bag_import import import_bags
from m2distill_training.data.store import open_store

STEPS, SIZE_PX = 25, 96  # the cameras' pictures are larger than the policy's


def test_every_tensor_of_a_recorded_run_is_that_of_its_import(client, checkpoint_path, tmp_path):
    config = SystemConfig(checkpoint=str(checkpoint_path), initial_state=41, assets="builtin", image_size_px=SIZE_PX,
                          pacing="lockstep", step_limit=STEPS, record=str(tmp_path / "episodes"))
    sim, policy, recorder_node = system(config)
    over, tasks = [], []
    client.create_subscription(Bool, "sim/episode_over", lambda m: over.append(m.data), LATCHED)
    client.create_subscription(String, "sim/task", lambda m: tasks.append(m.data), LATCHED)
    witnessed = tmp_path / "witnessed"
    witnessed.mkdir()
    with NodeProcesses([sim, recorder_node], tmp_path / "log") as nodes:
        node = subprocess.Popen([sys.executable, str(Path(__file__).with_name("witness_node.py")), str(witnessed),
                                 *command_line(policy)[3:]], env=nodes.environment)
        try:
            recorder = Recorder(client)
            recorder.wait_until_up()
            client.wait(lambda: client.status and tasks and client.instruction_pub.get_subscription_count() == 2,
                        "all nodes", START_LIMIT_S)
            assert recorder("start").success
            client.wait(lambda: recorder.numbers("messages") >= 8, "the first observation, repeated")
            client.say(tasks[-1])
            client.wait(lambda: over[-1], "the end of the episode", 60)
            client.wait(lambda: len(list(witnessed.iterdir())) > STEPS, "the answer to the last observation")
            assert recorder("keep").success
        finally:
            node.terminate()
            node.wait()

    report, = import_bags([tmp_path / "episodes"], tmp_path / "data")
    spec = PolicySpec.from_json((checkpoint_path / "spec.json").read_text())
    store = open_store(tmp_path / "data" / report.file, spec, "before")
    seen = [np.load(path) for path in sorted(witnessed.iterdir(), key=lambda path: int(path.stem))]
    assert len(seen) == STEPS + 1 and STEPS <= report.steps <= STEPS + 1 and report.idle_steps <= 1
    for tick, live in enumerate(seen[:report.steps]):
        batch = to_model_input({name: images[None, [tick]] for name, images in store.images.items()},
                               store.joint[None, [tick]], store.gripper[None, [tick]], np.zeros((1, 8), np.float32))
        made = {**{f"image_{name}": images for name, images in batch["images"].items()},
                "joint": batch["joint"], "gripper": batch["gripper"]}
        for name, tensor in made.items():
            assert tensor.numpy().dtype == live[name].dtype == np.float32
            np.testing.assert_array_equal(bits(tensor.numpy()), bits(live[name]), strict=True)
        if tick < STEPS:  # the last observation's answer may come after the end of the recording
            np.testing.assert_allclose(store.action[tick], np.clip(live["action"], -1, 1), atol=1e-6)


def bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.uint32)
