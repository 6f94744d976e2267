"""Starting and stopping the nodes: one description for all ways to start, and no process left behind."""

import importlib.util
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import psutil
import pytest
from harness import KNOWN, START_LIMIT_S, policy_node

from m2distill_policy import bringup
from m2distill_policy.bringup import NodeDescription, NodeProcesses, SystemConfig, command_line, system
from m2distill_policy.errors import UserError

LAUNCH_FILE = Path(__file__).parents[2] / "launch" / "run.launch.py"


def test_every_parameter_of_the_description_is_declared_by_its_node_with_that_type():
    from m2distill_policy.ros.policy_parameters import PolicyParameters
    from m2distill_sim.ros.sim_node import SimParameters

    declared = {"policy": PolicyParameters, "sim": SimParameters}
    for node in system(SystemConfig()):
        for name, value in node.parameters.items():
            if name != "use_sim_time":  # rclpy's own
                assert type(declared[node.name].__dataclass_fields__[name].default) is type(value), (node.name, name)


def test_texts_stay_texts_on_a_command_line():
    node = NodeDescription("p", "e", "n", "robot1", {"a": "12", "b": "it's", "c": True, "d": 0.5, "e": 3})
    assert command_line(node)[3:] == ["--ros-args", "-r", "__node:=n", "-r", "__ns:=/robot1", "-p", "a:='12'", "-p",
                                      "b:='it''s'", "-p", "c:=true", "-p", "d:=0.5", "-p", "e:=3"]


def launch_packages() -> dict[str, types.ModuleType]:
    """Where ROS 2's launch is not installed, as with the PyPI wheels: just enough to read what a launch file builds."""
    class Recorded:
        def __init__(self, *args, **kwargs):
            self.args, self.__dict__ = args, {**kwargs, "args": args}

    names = {"launch": ["LaunchDescription"], "launch_ros": [], "launch_ros.actions": ["Node"],
             "launch.actions": ["DeclareLaunchArgument", "OpaqueFunction", "SetEnvironmentVariable"]}
    modules = {name: types.ModuleType(name) for name in names}
    for name, classes in names.items():
        for class_name in classes:
            setattr(modules[name], class_name, type(class_name, (Recorded,), {}))
    return modules


def test_the_launch_file_starts_the_nodes_of_the_description(monkeypatch):
    if importlib.util.find_spec("launch_ros"):
        pytest.skip("written for machines without the launch package")
    for name, module in launch_packages().items():
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("run_launch", LAUNCH_FILE)
    launch_file = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launch_file)

    entities = launch_file.generate_launch_description().args[0]
    arguments = {e.args[0]: e.default_value for e in entities if type(e).__name__ == "DeclareLaunchArgument"}
    assert arguments.keys() == SystemConfig.__dataclass_fields__.keys()
    context = types.SimpleNamespace(launch_configurations=arguments | {"task": "3", "checkpoint": "c"})
    nodes = launch_file.start(context)
    assert [NodeDescription(n.package, n.executable, n.name, n.namespace, n.parameters[0]) for n in nodes] == list(
        system(SystemConfig(checkpoint="c", task=3)))


@pytest.mark.parametrize(("name", "chosen", "said"), [
    ("policy", {"checkpoint": "/nowhere"}, "no checkpoint at /nowhere: it is not a directory"),
    ("sim", {"suite": "libero_objekt"}, "unknown suite 'libero_objekt'; did you mean 'libero_object'? (allowed: "
                                        "libero_10, libero_90, libero_goal, libero_object, libero_spatial)"),
])
def test_a_node_that_cannot_start_is_reported_by_one_line_that_says_why(name, chosen, said, tmp_path):
    description = next(node for node in system(SystemConfig(**chosen)) if node.name == name)
    with NodeProcesses([description], tmp_path) as nodes:
        assert psutil.Process(nodes.pids[name]).wait(START_LIMIT_S) == 2
        with pytest.raises(UserError) as error:
            nodes.check()
    assert str(error.value).endswith(f": {said} (log: {tmp_path / name}.log)")
    assert "\n" not in str(error.value)
    assert "Traceback" not in nodes.log_path(name).read_text()


def test_a_parameter_out_of_range_is_one_line_and_status_2(tmp_path):
    with NodeProcesses([policy_node("c", pacing="hurry")], tmp_path) as nodes:
        assert psutil.Process(nodes.pids["policy"]).wait(START_LIMIT_S) == 2
    assert "pacing is 'hurry', allowed: real_time, lockstep" in nodes.log_path("policy").read_text().splitlines()[-1]


def test_sigterm_ends_an_active_node_with_the_zero_command_and_status_0(client, checkpoint_path, tmp_path):
    with NodeProcesses([policy_node(checkpoint_path, autostart=True)], tmp_path) as nodes:
        client.wait_until_active()
        client.sensors.reset()
        client.say(KNOWN[0])
        client.wait_for_motion(True)
        psutil.Process(nodes.pids["policy"]).send_signal(signal.SIGTERM)
        client.wait(lambda: not client.count_publishers("twist_cmd"), "the publisher to go")
        client.wait_for_motion(False)
        assert psutil.Process(nodes.pids["policy"]).wait(20) == 0


STUBBORN = """
import signal, subprocess, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print(child.pid, flush=True)
signal.pause()
"""


def test_stop_kills_a_node_that_ignores_it_and_its_children(tmp_path, monkeypatch):
    (tmp_path / "stubborn" / "ros").mkdir(parents=True)
    (tmp_path / "stubborn" / "ros" / "node.py").write_text(STUBBORN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(bringup, "STOP_SIGNALS", ((signal.SIGINT, 0.2), (signal.SIGKILL, 5.0)))
    with NodeProcesses([NodeDescription("stubborn", "node", "n", "", {})], tmp_path) as nodes:
        log = nodes.log_path("n")
        child = psutil.Process(_first_line(log))
        node = psutil.Process(nodes.pids["n"])
    assert not node.is_running()
    child.wait(5)


def _first_line(log: Path) -> int:
    """The number on the first line, once the line is complete."""
    reader = subprocess.Popen(["tail", "-F", "-n", "+1", str(log)], stdout=subprocess.PIPE, text=True)
    try:
        return int(reader.stdout.readline())
    finally:
        reader.kill()
        reader.wait()
        reader.stdout.close()


STARTER = """
import signal, sys
from pathlib import Path
from m2distill_policy.bringup import NodeDescription, NodeProcesses
node = NodeDescription("m2distill_policy", "policy_node", "policy", "", {})
with NodeProcesses([node], Path(sys.argv[1])) as nodes:
    print(nodes.pids["policy"], flush=True)
    signal.pause()
"""


def test_no_node_outlives_a_starter_that_is_killed(client, tmp_path):
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    node = psutil.Process(int(starter.stdout.readline()))
    starter.stdout.close()
    client.wait(client.get_state.service_is_ready, "the node", START_LIMIT_S)
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    node.wait(20)
