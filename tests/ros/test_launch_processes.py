"""Real `ros2 launch`: what is left after it, what it does to an including launch file, and its exit status."""

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml
from harness import KNOWN, START_LIMIT_S, policy_node

from m2distill_policy.bringup.processes import NodeProcesses

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "ros2_ws" / "src"
pytestmark = pytest.mark.skipif(not importlib.util.find_spec("ros2launch"), reason="no ros2 launch here")


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Environment in which ROS 2 finds the executables of the source tree."""
    prefix = tmp_path_factory.mktemp("prefix")
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (prefix / "lib").mkdir()
    for package in ("m2distill_policy", "m2distill_sim"):
        (index / package).touch()
        (prefix / "lib" / package).symlink_to(SOURCES / package / "scripts")
    return {**os.environ, "AMENT_PREFIX_PATH": f"{prefix}:{os.environ.get('AMENT_PREFIX_PATH', '')}".rstrip(":")}


@contextmanager
def launched(file: Path, arguments: Sequence[str], environment, log: Path) -> Iterator[subprocess.Popen]:
    """Run `ros2 launch FILE ARGUMENTS` with its output in `log`; nothing of it is left behind."""
    with log.open("wb") as output:
        command = [shutil.which("ros2"), "launch", str(file), *arguments]
        launch = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    everything = psutil.Process(launch.pid)
    try:
        yield launch
    finally:
        family = everything.children(recursive=True) if launch.poll() is None else []
        if launch.poll() is None:
            launch.send_signal(signal.SIGINT)
            launch.wait(30)
        for process in family:
            if process.is_running():
                process.kill()


def ended(file: str, arguments: Sequence[str], environment, log: Path) -> tuple[int, str]:
    """Return exit status and output of a launch that ends by itself."""
    with launched(ROOT / "launch" / file, arguments, environment, log) as launch:
        return launch.wait(START_LIMIT_S), log.read_text()


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_policy_stops_the_arm_and_ends_when_ros2_launch_is_killed(
    client, checkpoint_path, environment, tmp_path, number, prefix
):
    """With a launch prefix the parent of the node is another process, which outlives the launch."""
    script = tmp_path / "prefix.sh"
    script.write_text('#!/bin/sh\ntrap "" TERM INT\n"$@"\nexec sleep 60\n')
    script.chmod(0o755)
    arguments = [f"checkpoint:={checkpoint_path}", "arm:=libero_sim", "use_sim_time:=False", "autostart:=True"]
    arguments += [f"launch-prefix:={script}"] if prefix else []
    with launched(ROOT / "launch/policy.launch.py", arguments, environment, tmp_path / "log") as launch:
        client.wait_until_active()
        family = psutil.Process(launch.pid).children(recursive=True)
        (policy,) = (process for process in family if "policy_node" in " ".join(process.cmdline()[:2]))
        client.sensors.reset()
        client.instruct(KNOWN[0])
        client.wait_for_motion(True)
        launch.send_signal(number)
        client.wait(lambda: not client.count_publishers("twist_cmd"), "the publisher to go")
        client.wait_for_motion(False)
        policy.wait(20)
        for process in family:
            if process.is_running():
                process.kill()


INCLUDING = """
from launch import LaunchDescription
from launch.actions import ExecuteProcess, IncludeLaunchDescription, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import SetParameter

OPTIONS = {options}


def generate_launch_description():
    included = IncludeLaunchDescription(PythonLaunchDescriptionSource({file!r}), launch_arguments=OPTIONS.items())
    other = ExecuteProcess(cmd=["sh", "-c", "env > {folder}/environment; exec sleep 5"], name="driver")
    end = RegisterEventHandler(OnProcessExit(target_action=other, on_exit=[
        ExecuteProcess(cmd=["touch", "{folder}/undisturbed"])
    ]))
    return LaunchDescription([SetParameter("use_sim_time", True), included, end, other])
"""


@pytest.mark.parametrize("required", [False, True])
def test_an_included_launch_file_leaves_the_including_one_alone_unless_it_is_required(environment, tmp_path, required):
    """The policy has no checkpoint and ends with status 2; the driver runs for 5 s beside it."""
    options = {"checkpoint": "/nowhere", "required": str(required)}
    file = tmp_path / "robot.launch.py"
    file.write_text(
        INCLUDING.format(options=options, file=str(ROOT / "launch/policy.launch.py"), folder=tmp_path).replace(
            "sleep 5", "sleep 60" if required else "sleep 5"
        )
    )
    given = {name: value for name, value in environment.items() if "PROFILES_FILE" not in name and name != "MUJOCO_GL"}
    with launched(file, [], given, tmp_path / "log") as launch:
        status = launch.wait(START_LIMIT_S)
    log = (tmp_path / "log").read_text()
    assert "no checkpoint at /nowhere" in log and "Traceback" not in log
    if required:
        assert status == 1 and "policy ended with status 2" in log
        return
    assert status == 0 and (tmp_path / "undisturbed").exists() and "policy_node-1]: process has died" in log
    names = {line.partition("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert not names & {"FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "MUJOCO_GL"}
    assert "M2DISTILL_STARTER_PID" not in names


def test_a_system_whose_node_fails_has_an_exit_status_that_is_not_0(environment, tmp_path):
    home = {**environment, "HOME": str(tmp_path)}
    status, log = ended("run.launch.py", ["arm:=ur_servo", "checkpoint:=~/nothing"], home, tmp_path / "log")
    assert status == 1 and f"no checkpoint at {tmp_path}/nothing" in log and "Traceback" not in log


@pytest.mark.parametrize("argument", ["dry_rn:=true", "dry-run:=true", "sed:=3", "follow_chekpoint:=true"])
def test_a_misspelt_argument_starts_nothing(environment, tmp_path, argument):
    status, log = ended("policy.launch.py", [argument, "arm:=ur_servo", "checkpoint:=c"], environment, tmp_path / "log")
    assert status == 1 and "process started" not in log
    assert f"unknown launch argument '{argument.partition(':=')[0]}'; did you mean " in log


def test_the_parameters_of_a_node_can_be_dumped_and_start_it_again(client, checkpoint_path, tmp_path):
    dumps = []
    node = policy_node(checkpoint_path, arm="unknown", max_linear_m_s=0.03)
    for number, description in enumerate((node, replace(node, parameters={}, params_file=str(tmp_path / "0.yaml")))):
        with NodeProcesses([description], tmp_path):
            client.wait(client.policy_parameters.services_are_ready, "the node", START_LIMIT_S)
            command = [shutil.which("ros2"), "param", "dump", "/policy", "--no-daemon", "--spin-time", "5"]
            dumps.append(
                subprocess.run(command, capture_output=True, text=True, timeout=START_LIMIT_S, check=True).stdout
            )
        (tmp_path / f"{number}.yaml").write_text(dumps[-1])
    values = yaml.safe_load(dumps[0])["/policy"]["ros__parameters"]
    assert (values["max_linear_m_s"], values["joint_names"], values["joint_lower_rad"]) == (0.03, [], [])
    assert dumps[0] == dumps[1]
