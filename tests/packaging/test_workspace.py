"""Builds of each ROS package alone in a foreign workspace: what is installed, written elsewhere, and started."""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from workspace import CHECKOUT, HAS_WHEELS, ROOT, WORKSPACE, build, copy_package, environment, run_node, snapshot

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (HAS_WHEELS or shutil.which("colcon")), reason="needs colcon and a ROS 2"),
]
NODES = {
    "m2distill_policy": ["policy_node", "recorder_node", "teleop_node", "dashboard_node"],
    "m2distill_sim": ["sim_node"],
    "m2distill_interfaces": [],
}
SHARED = {
    "m2distill_policy": [
        "launch/policy.launch.py",
        "launch/run.launch.py",
        "launch/sim.launch.py",
        "rviz/foxglove.json",
        "rviz/m2distill.rviz",
    ],
    "m2distill_sim": [],
    "m2distill_interfaces": ["action/ExecuteInstruction.action", "msg/PolicyAction.msg", "msg/PolicyStatus.msg"],
}


MESSAGES = "m2distill_interfaces"
OPTIONS = {"linked": ("--symlink-install",), "copied": ()}
WAYS = pytest.mark.parametrize("way", OPTIONS)


def foreign_workspace(folder: Path) -> Path:
    """Return an empty workspace of somebody who has files of the same names as ours in every folder around it."""
    workspace = folder.joinpath(*WORKSPACE)
    for place in [workspace / CHECKOUT, *(workspace / CHECKOUT).parents]:
        for name in ("launch/run.launch.py", "rviz/m2distill.rviz", "config/fastdds.xml", "LICENSE"):
            file = place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("the user's own\n")
        if place == folder:
            break
    return workspace


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Callable[[str, str], Path]:
    """Function that returns a workspace with one package, built in one way; it builds once.

    Copied messages take the place of linked ones in their workspace: they are compiled once.
    """

    @functools.cache
    def built(package: str, way: str) -> Path:
        cmake_options: tuple[str, ...] = ()
        if (package, way) == (MESSAGES, "copied"):
            workspace = built(MESSAGES, "linked")
            shutil.rmtree(workspace / "install")
            shutil.rmtree(workspace / "build" / MESSAGES / "ament_cmake_python")
            cmake_options = ("-DAMENT_CMAKE_SYMLINK_INSTALL=OFF",)
        else:
            workspace = foreign_workspace(tmp_path_factory.mktemp(package))
            copy_package(package, workspace)
        around = workspace.parents[1]
        before = snapshot(around)
        build(workspace, *OPTIONS[way], cmake_options=cmake_options)
        assert snapshot(around) == before
        return workspace

    return built


@pytest.mark.parametrize("package", NODES)
def test_a_package_alone_builds_and_writes_nothing_outside_the_build_folders(package, alone):
    for way in OPTIONS:
        workspace = alone(package, way)
        share = workspace / "install" / package / "share" / package
        assert [name for name in ["package.xml", *SHARED[package]] if not (share / name).is_file()] == []
        assert (share / "package.xml").is_symlink() == (way == "linked")
        lib = workspace / "install" / package / "lib" / package
        assert [name for name in NODES[package] if not os.access(lib / name, os.X_OK)] == []


@WAYS
def test_nodes_of_a_built_workspace_start_with_the_python_on_the_path(way, tmp_path):
    workspace = foreign_workspace(tmp_path)
    for package in ("m2distill_policy", "m2distill_sim"):
        copy_package(package, workspace)
    build(workspace, *OPTIONS[way])
    for package in ("m2distill_policy", "m2distill_sim"):
        for node in NODES[package]:
            script = workspace / "install" / package / "lib" / package / node
            assert script.read_text().startswith("#!/usr/bin/env python3\n")
    end = run_node(workspace, "m2distill_policy", "policy_node", "--ros-args", "-p", "autostart:=true")
    assert end.returncode == 2 and "checkpoint" in end.stderr and "Traceback" not in end.stderr
    end = run_node(workspace, "m2distill_sim", "sim_node", "--ros-args", "-p", "suite:=libero_objekt")
    assert end.returncode == 2 and "libero_object" in end.stderr and "Traceback" not in end.stderr


@WAYS
@pytest.mark.parametrize(("package", "node"), [(package, node) for package, nodes in NODES.items() for node in nodes])
def test_a_node_reports_a_missing_module_in_one_line(package, node, way, alone, tmp_path):
    """The Python that is first on PATH has neither torch nor rclpy."""
    workspace = alone(package, way)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "python3").write_text(f'#!/bin/sh\nexec {sys.base_prefix}/bin/python3 -S "$@"\n')
    (bare / "python3").chmod(0o755)
    end = run_node(workspace, package, node, PATH=f"{bare}:/usr/bin:/bin")
    assert end.returncode == 2
    missing = re.fullmatch(rf"error: {node} needs the Python module (\S+), which .* does not have; .*\n", end.stderr)
    assert missing and missing[1].partition(".")[0] != package, end.stderr


def test_messages_that_stand_in_for_a_distributions_are_not_part_of_a_workspace():
    """A distribution has packages of the same names, which they would replace."""
    found = {
        path.parent.name for folder in ("ros2_ws", "tests") for path in (ROOT / folder).rglob("*_msgs/package.xml")
    }
    assert found >= {"tf2_msgs", "control_msgs", "moveit_msgs"}
    colcon = [sys.executable, "-m", "colcon"] if HAS_WHEELS else ["colcon"]
    command = [*colcon, "list", "--names-only", "--base-paths", ROOT / "ros2_ws", ROOT / "tests"]
    listed = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert listed.stdout.split() == ["m2distill_interfaces", "m2distill_policy", "m2distill_sim"]
