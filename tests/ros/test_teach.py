"""docs/teach.md from end to end, with a network that learns nothing: the expert operator records a third task over
ROS 2, which is imported, learned, proven and promoted; the running node swaps and is told a new and an old task. What
it proves is the path."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import LATCHED, START_LIMIT_S, Client, policy_node
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from recorder_client import Recorder, recorder_node
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup import NodeDescription, NodeProcesses
from m2distill_policy.checkpoint import load_checkpoint
from m2distill_sim.assets import find_assets
from m2distill_sim.collect import collect
from m2distill_sim.suites import find_task
from m2distill_training import cli
from m2distill_training.loop import train
from m2distill_training.presets import debug
from m2distill_training.promotion import current, promote
from m2distill_training.proof import Bars

SUITE, OLD, NEW, EPISODES = "libero_object", (0, 1), 2, 2
BARS = ["--success", "0", "--nats", "100", "--drift", "100"]


@pytest.fixture(scope="module")
def run_path(tmp_path_factory) -> Path:
    """A run that has learned two tasks, the second of them promoted; the demonstrations are gone."""
    folder = tmp_path_factory.mktemp("lab")
    files = collect(SUITE, OLD, 2, folder / "demos", workers=1, size_px=16, assets=find_assets("builtin"),
                    progress=False)
    config = debug()
    config = dataclasses.replace(config, replay=dataclasses.replace(config.replay, held_out_demos=1))
    run = train(config, files, folder / "run")
    for path in files:
        path.unlink()
    promote(run.path, bars=Bars(nats=100.0, drift=100.0), suites=())
    return run.path


@pytest.fixture(scope="module")
def nodes(run_path, tmp_path_factory) -> Iterator[NodeProcesses]:
    link = run_path / "current"
    sim = NodeDescription("m2distill_sim", "sim_node", "sim", "", {
        "suite": SUITE, "task": NEW, "assets": "builtin", "image_size_px": 32, "pacing": "lockstep",
        "operator": "expert", "step_limit": 300})
    descriptions = [sim, recorder_node(link, run_path.parent / "episodes", use_sim_time=True),
                    policy_node(link, autostart=True, follow_checkpoint=True, pacing="lockstep", use_sim_time=True)]
    with NodeProcesses(descriptions, tmp_path_factory.mktemp("log")) as nodes:
        yield nodes
        nodes.check()


class Simulator:
    def __init__(self, client: Client):
        self.client, self.success = client, []
        client.create_subscription(Bool, "sim/success", lambda m: self.success.append(m.data), LATCHED)
        self._reset = client.create_client(Trigger, "sim/reset")
        self._parameters = AsyncParameterClient(client, "sim")

    def begin(self, initial_state: int) -> None:
        client = self.client
        client.wait(lambda: self._reset.service_is_ready() and self._parameters.services_are_ready(), "the simulator",
                    START_LIMIT_S)
        client.result(self._parameters.set_parameters([Parameter("initial_state", value=initial_state)]), "a parameter")
        assert client.result(self._reset.call_async(Trigger.Request()), "the reset").success
        client.wait(lambda: self.success and not self.success[-1], "the new episode")


def test_a_third_task_is_taught_and_the_running_node_obeys_it_and_an_old_one(client, run_path, nodes):
    simulator, recorder = Simulator(client), Recorder(client)
    new = find_task(SUITE, NEW).instruction
    old = find_task(SUITE, OLD[0]).instruction
    client.wait(lambda: client.status and client.status.checkpoint_id, "the policy node", START_LIMIT_S)
    before = client.status.checkpoint_id
    client.wait(lambda: all(s.service_is_ready() for s in recorder.services.values()) and recorder.diagnoses(),
                "the recorder", START_LIMIT_S)

    # record: the operator solves the task, and every success is kept
    for episode in range(EPISODES):
        simulator.begin(episode)
        assert recorder("start").success
        client.wait(lambda: simulator.success[-1], "the operator's success", 120.0)
        recorder.command_pub.publish(String(data=f"instruction {new}"))
        kept = client.wait(lambda: (answer := recorder("keep")).success and answer, "an episode with its instruction")
        assert kept.success

    # import, learn, prove and promote
    lab = run_path.parent
    assert cli.run(["import", "bag", str(lab / "episodes"), "--out", str(lab / "new")]) == 0
    [file] = (lab / "new").glob("*.hdf5")
    assert cli.run(["learn", "--run", str(run_path), "--data", str(file), "--device", "cpu"]) == 0
    assert current(run_path) == 1  # nothing that runs has changed
    promotion = ["promote", "--run", str(run_path), "--episodes", "1", "--max-steps", "5", "--assets", "builtin"]
    assert cli.run([*promotion, "--success", "0.5"]) == 2  # a network that has learned nothing
    assert current(run_path) == 1
    assert cli.run([*promotion, *BARS]) == 0
    promoted = load_checkpoint(run_path / "current")
    assert set(promoted.instructions) == {new, *(find_task(SUITE, task).instruction for task in OLD)}

    # the running node follows, and obeys
    client.wait(lambda: client.status.checkpoint_id == promoted.id, "the swap")
    assert client.status.previous_checkpoint_id == before
    for instruction in (new, old):
        client.say(instruction)
        client.wait(lambda text=instruction: client.status.instruction == text, "the instruction")
        assert client.status.state != PolicyStatus.FAULT
