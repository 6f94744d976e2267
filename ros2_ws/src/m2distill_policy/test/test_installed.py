"""Checks that `colcon test` runs on the installed package; its behaviour is tested in the repository's tests/."""

import subprocess
import sys
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_prefix, get_package_share_directory

NAME = "m2distill_policy"
NODES = Path(get_package_prefix(NAME), "lib", NAME)


def test_launch_files_and_views_are_in_the_share_folder():
    share = Path(get_package_share_directory(NAME))
    assert {file.name for file in share.glob("launch/*.launch.py")} == {
        "run.launch.py",
        "policy.launch.py",
        "sim.launch.py",
    }
    assert {file.name for file in share.glob("rviz/*")} == {"m2distill.rviz", "foxglove.json"}


def test_the_dds_profile_is_in_the_python_package():
    code = "from m2distill_policy.bringup.system import FASTDDS_PROFILE; print(FASTDDS_PROFILE.is_file())"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout
    assert output.strip() == "True"


def test_the_arm_files_are_installed():
    code = "from m2distill_policy.safety.arm_presets import arm_names; print(*arm_names())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout
    assert {"unknown", "libero_sim", "franka_servo", "franka_impedance", "ur_servo"} <= set(printed.split())


@pytest.mark.parametrize("node", ["policy_node", "recorder_node", "teleop_node", "dashboard_node"])
def test_a_node_starts_with_the_python_on_the_path(node):
    assert (NODES / node).read_text().startswith("#!/usr/bin/env python3\n")


def test_policy_node_reports_a_missing_checkpoint():
    end = subprocess.run(
        [NODES / "policy_node", "--ros-args", "-p", "autostart:=true"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert end.returncode == 2
    assert "checkpoint" in end.stderr and "Traceback" not in end.stderr
