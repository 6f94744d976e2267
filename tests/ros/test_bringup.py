"""Start and stop of the nodes: one description for every way to start, and no process left behind."""

import os
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import psutil
import pytest
from harness import KNOWN, START_LIMIT_S, policy_node
from rcl_interfaces.msg import ParameterType
from rclpy.parameter_client import AsyncParameterClient
from recorder_client import recorder_node

from m2distill_policy.bringup import processes, system
from m2distill_policy.bringup.launch_config import (
    PolicyLaunchConfig,
    SimLaunchConfig,
    SystemLaunchConfig,
    read_option,
)
from m2distill_policy.bringup.processes import NodeDescription, NodeProcesses, command_line
from m2distill_policy.bringup.system import policy_nodes, read_arguments, sim_nodes, system_nodes
from m2distill_policy.errors import UserError


def test_every_parameter_of_the_description_is_declared_by_its_node_with_that_type():
    from m2distill_policy.bringup.parameters import (
        POLICY_GROUPS,
        ArmParameters,
        DashboardParameters,
        RecorderParameters,
        SimParameters,
        TeleopParameters,
    )

    declared = {"policy": (ArmParameters, *POLICY_GROUPS), "sim": (SimParameters,), "recorder": (RecorderParameters,)}
    declared |= {"dashboard": (DashboardParameters,), "teleop": (ArmParameters, TeleopParameters)}
    nodes = system_nodes(SystemLaunchConfig(record="r", dashboard=True, teleop=True))
    assert {node.name for node in nodes} == declared.keys()
    for node in nodes:
        defaults = {field.name: field.default for group in declared[node.name] for field in fields(group)}
        for name, value in node.parameters.items():
            if name != "use_sim_time":  # rclpy's own
                assert type(defaults[name]) is type(value), (node.name, name)


def test_a_preset_names_parameters_that_are_declared_with_values_of_their_type_and_range():
    from m2distill_policy.bringup.parameters import POLICY_GROUPS
    from m2distill_policy.robot import RobotParameters
    from m2distill_policy.safety.arm_presets import arm_names, load_arm

    groups = (*POLICY_GROUPS, RobotParameters)
    declared = {field.name: field for group in groups for field in fields(group)}
    for arm in arm_names():
        for name, value in load_arm(arm).items():
            low, high = declared[name].metadata["bounds"]
            assert type(value) is type(declared[name].default), (arm, name)
            assert low is None or low <= value <= high, (arm, name)
            assert value in (declared[name].metadata["choices"] or (value,)), (arm, name)


def test_strings_keep_their_type_on_a_command_line():
    node = NodeDescription("p", "e", "n", "robot1", {"a": "12", "b": "it's", "c": True, "d": 0.5, "e": 3})
    assert command_line(node)[3:] == [
        "--ros-args",
        "-r",
        "__node:=n",
        "-r",
        "__ns:=/robot1",
        "-p",
        "a:='12'",
        "-p",
        "b:='it''s'",
        "-p",
        "c:=true",
        "-p",
        "d:=0.5",
        "-p",
        "e:=3",
    ]
    named = NodeDescription("p", "e", "n", "", {}, "f.yaml", (("a", "b"), ("c", "/d/e")))
    assert command_line(named)[6:] == ["-r", "a:=b", "-r", "c:=/d/e", "--params-file", "f.yaml"]


def test_every_option_can_be_set_on_the_command_line():
    chosen = {
        "checkpoint": "c",
        "namespace": "robot1",
        "params_file": "f.yaml",
        "remap": "a:=b c:=/d",
        "arm": "franka_servo",
        "dry_run": True,
        "use_sim_time": "false",
        "sampling": "mode",
        "seed": 3,
        "pacing": "lockstep",
        "image_transport": "compressed",
        "autostart": False,
        "follow_checkpoint": True,
        "dashboard": True,
        "dashboard_port": 8771,
        "dashboard_run": "runs/kitchen",
        "teleop": True,
        "record": "r",
        "operator": "Ada",
        "suite": "libero_goal",
        "task": 4,
        "initial_state": 5,
        "assets": "builtin",
        "cameras": "cameras.yaml",
        "image_size_px": 64,
        "step_limit": 7,
        "video": "v",
    }
    assert chosen.keys() == SystemLaunchConfig.__dataclass_fields__.keys()
    words = [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items()]
    assert read_arguments([*words, "--log-dir", "logs"]) == (SystemLaunchConfig(**chosen), Path("logs"))
    assert read_arguments(["--checkpoint", "c"])[0] == SystemLaunchConfig(checkpoint="c")


@pytest.mark.parametrize(
    ("words", "wording"),
    [
        (["--arm", "franka_servos"], "unknown arm 'franka_servos'; did you mean 'franka_servo'?"),
        (["--arm", "/nowhere.yaml"], "arm file /nowhere.yaml does not exist; give the path of a YAML file"),
        (["--task", "first"], "--task is 'first', expected a whole number"),
        (["--autostart", "no"], "--autostart is 'no', expected true or false"),
        (["--params-file", "/nowhere.yaml"], "params_file /nowhere.yaml is not a file"),
        (["--remap", "twist_cmd:=a gripper_cmd"], "remap has 'gripper_cmd', expected FROM:=TO"),
    ],
)
def test_an_invalid_choice_is_rejected(words, wording, capsys):
    assert system.main(["--checkpoint", "c", *words]) == 2
    assert capsys.readouterr().err.startswith(f"m2distill: error: {wording}")


def test_the_home_folder_is_expanded_in_every_path(tmp_path, monkeypatch):
    """No shell does it in `--video=~/v` and `video:=~/v`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = ("checkpoint", "params_file", "record", "dashboard_run", "assets", "cameras", "video")
    config, _ = read_arguments([f"--{name.replace('_', '-')}=~/{name}" for name in paths])
    for name in paths:
        assert getattr(config, name) == f"{tmp_path}/{name}"
        assert read_option(SystemLaunchConfig.__dataclass_fields__[name], f"~/{name}") == f"{tmp_path}/{name}"
    assert read_arguments(["--operator=~/Ada"])[0].operator == "~/Ada"


def test_a_real_arm_needs_no_simulator_and_uses_the_wall_clock():
    (node,) = system_nodes(SystemLaunchConfig(checkpoint="c", arm="ur_servo"))
    assert (node.name, node.parameters["arm"]) == ("policy", "ur_servo") and "use_sim_time" not in node.parameters
    sim, node = system_nodes(SystemLaunchConfig())
    assert (sim.name, node.parameters["arm"], node.parameters["use_sim_time"]) == ("sim", "libero_sim", True)


@pytest.mark.parametrize(("chosen", "expected"), [("true", True), ("false", False)])
def test_the_clock_can_be_chosen_for_any_arm(chosen, expected):
    for arm in ("ur_servo", "libero_sim"):
        nodes = policy_nodes(PolicyLaunchConfig(checkpoint="c", record="r", arm=arm, use_sim_time=chosen))
        assert [node.parameters["use_sim_time"] for node in nodes] == [expected, expected]


def test_an_arm_file_reaches_every_node_as_an_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "arm.yaml").write_text("frame_id: base\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for arm in ("arm.yaml", "./arm.yaml", "~/arm.yaml"):
        config, _ = read_arguments(["--checkpoint", "c", "--record", "r", "--arm", arm])
        for nodes in (system_nodes(config), policy_nodes(PolicyLaunchConfig(checkpoint="c", record="r", arm=arm))):
            assert [node.name for node in nodes] == ["policy", "recorder"]
            assert {node.parameters["arm"] for node in nodes} == {str(tmp_path / "arm.yaml")}
            assert not any("use_sim_time" in node.parameters for node in nodes)


@pytest.mark.parametrize(
    ("name", "chosen", "wording"),
    [
        ("policy", {"checkpoint": "/nowhere"}, "no checkpoint at /nowhere: it is not a directory"),
        ("sim", {"suite": "libero_objekt"}, "unknown suite 'libero_objekt'; did you mean 'libero_object'?"),
    ],
)
def test_a_node_that_cannot_start_is_reported_in_one_line_with_the_reason(name, chosen, wording, tmp_path):
    description = next(node for node in system_nodes(SystemLaunchConfig(**chosen)) if node.name == name)
    with NodeProcesses([description], tmp_path) as nodes:
        assert psutil.Process(nodes.pids[name]).wait(START_LIMIT_S) == 2
        with pytest.raises(UserError) as error:
            nodes.check()
    assert f": {wording}" in str(error.value) and str(error.value).endswith(f"(log: {tmp_path / name}.log)")
    assert "\n" not in str(error.value)
    assert "Traceback" not in nodes.log_path(name).read_text()


def test_a_parameter_out_of_range_is_one_line_and_status_2(tmp_path):
    with NodeProcesses([policy_node("c", pacing="hurry")], tmp_path) as nodes:
        assert psutil.Process(nodes.pids["policy"]).wait(START_LIMIT_S) == 2
    assert "pacing is 'hurry', allowed: real_time, lockstep" in nodes.log_path("policy").read_text().splitlines()[-1]


def test_a_parameter_file_takes_precedence_over_options_and_topics_are_remapped(client, checkpoint_path, tmp_path):
    file = tmp_path / "arm.yaml"
    file.write_text("/**/policy:\n  ros__parameters:\n    frame_id: fr3_link0\n    seed: 7\n")
    config = PolicyLaunchConfig(
        checkpoint=str(checkpoint_path),
        arm="franka_servo",
        namespace="left",
        seed=3,
        params_file=str(file),
        remap="twist_cmd:=/servo/delta_twist_cmds",
    )
    with NodeProcesses(policy_nodes(config), tmp_path):
        client.wait(lambda: client.count_publishers("/servo/delta_twist_cmds"), "its other name", START_LIMIT_S)
        assert not client.count_publishers("/left/twist_cmd")
        asked = AsyncParameterClient(client, "/left/policy")
        client.wait(asked.services_are_ready, "the parameters")
        values = client.result(asked.get_parameters(["seed", "frame_id"]), "their values").values
    assert (values[0].integer_value, values[1].string_value) == (7, "fr3_link0")


def teleop_node() -> NodeDescription:
    return NodeDescription("m2distill_policy", "teleop_node", "teleop", "", {})


def test_every_parameter_of_every_node_has_a_value(client, checkpoint_path, tmp_path):
    """One without a value makes `ros2 param dump` print nothing; that of the type of an empty array is kept."""
    arrays = {
        "joint_names": ParameterType.PARAMETER_STRING_ARRAY,
        "joint_lower_rad": ParameterType.PARAMETER_DOUBLE_ARRAY,
        "joint_upper_rad": ParameterType.PARAMETER_DOUBLE_ARRAY,
    }
    described = [
        policy_node(checkpoint_path, arm="unknown"),
        *sim_nodes(SimLaunchConfig(assets="builtin")),
        recorder_node(checkpoint_path, tmp_path / "episodes"),
        teleop_node(),
    ]
    for description in described:
        with NodeProcesses([description], tmp_path):
            asked = AsyncParameterClient(client, description.name)
            client.wait(asked.services_are_ready, "the parameters", START_LIMIT_S)
            names = client.result(asked.list_parameters(depth=0), "their names").result.names
            values = client.result(asked.get_parameters(names), "their values").values
        types = {name: value.type for name, value in zip(names, values, strict=True)}
        assert len(types) > 3 and ParameterType.PARAMETER_NOT_SET not in types.values(), types
        if description.name == "policy":
            assert {name: types[name] for name in arrays} == arrays


@pytest.mark.parametrize("arrays", ["joint_names: []\n    joint_lower_rad: []", "seed: 1"])
def test_the_home_folder_is_expanded_in_a_parameter_file_and_an_empty_array_is_accepted(
    client, checkpoint_path, tmp_path, monkeypatch, arrays
):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tiny").symlink_to(checkpoint_path)
    file = tmp_path / "arm.yaml"
    file.write_text(f"policy:\n  ros__parameters:\n    {arrays}\n    checkpoint: ~/tiny\n")
    config = PolicyLaunchConfig(checkpoint="/nowhere", params_file=str(file), use_sim_time="false")
    with NodeProcesses(policy_nodes(config), tmp_path) as nodes:
        client.wait_until_active()
        assert not client.rejection("checkpoint", "~/tiny")
        assert client.call("reload").success
        nodes.check()


@pytest.mark.parametrize(
    ("content", "wording"),
    [
        (
            "policy:\n  ros__parameters:\n    max_linear_ms: 0.02\n",
            "unknown parameter 'max_linear_ms'; did you mean 'max_linear_m_s'?",
        ),
        ("policy: [", "Couldn't parse params file"),
    ],
)
def test_a_parameter_file_that_would_be_ignored_is_rejected(content, wording, checkpoint_path, tmp_path):
    file = tmp_path / "arm.yaml"
    file.write_text(content)
    with NodeProcesses(
        policy_nodes(PolicyLaunchConfig(checkpoint=str(checkpoint_path), params_file=str(file))), tmp_path
    ) as nodes:
        assert psutil.Process(nodes.pids["policy"]).wait(START_LIMIT_S) == 2
    assert wording in nodes.log_path("policy").read_text().splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_an_active_node_with_the_zero_command_and_status_0(client, checkpoint_path, tmp_path, number):
    ours = signal.signal(number, signal.SIG_DFL)  # a node inherits it, and under nohup it would still be ignored
    with NodeProcesses([policy_node(checkpoint_path, autostart=True)], tmp_path) as nodes:
        signal.signal(number, ours)
        client.wait_until_active()
        client.sensors.reset()
        client.instruct(KNOWN[0])
        client.wait_for_motion(True)
        psutil.Process(nodes.pids["policy"]).send_signal(number)
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
    (tmp_path / "stubborn" / "ros" / "nodes").mkdir(parents=True)
    (tmp_path / "stubborn" / "ros" / "nodes" / "node.py").write_text(STUBBORN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(processes, "STOP_SIGNALS", ((signal.SIGINT, 0.2), (signal.SIGKILL, 5.0)))
    with NodeProcesses([NodeDescription("stubborn", "node", "n", "", {})], tmp_path) as nodes:
        log = nodes.log_path("n")
        child = psutil.Process(_first_line(log))
        node = psutil.Process(nodes.pids["n"])
    assert not node.is_running()
    child.wait(5)


def _first_line(log: Path) -> int:
    """Return the number on the first line, when the line is complete."""
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
from m2distill_policy.bringup.processes import NodeDescription, NodeProcesses
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
