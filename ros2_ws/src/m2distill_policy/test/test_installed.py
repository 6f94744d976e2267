"""Run by `colcon test`: what was installed is whole. How it behaves is tested in the repository's tests/."""

import subprocess
import sys
from pathlib import Path

from ament_index_python.packages import get_package_prefix, get_package_share_directory

NAME = "m2distill_policy"


def test_the_launch_files_are_where_ros2_launch_looks():
    files = Path(get_package_share_directory(NAME), "launch").glob("*.launch.py")
    assert {file.name for file in files} == {"run.launch.py", "policy.launch.py", "sim.launch.py"}


def test_what_the_launch_files_open_is_installed():
    code = (
        "from pathlib import Path; import m2distill_policy; folder = Path(m2distill_policy.__file__).parent / 'config'; "
        "print(*(file.name for file in folder.iterdir() if file.suffix != '.py'))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout
    assert {"fastdds.xml", "m2distill.rviz", "foxglove.json"} <= set(said.split())


def test_the_arm_files_are_installed():
    code = "from m2distill_policy.safety.arm_presets import arm_names; print(*arm_names())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout
    assert {"unknown", "libero_sim", "franka_servo", "franka_impedance", "ur_servo"} <= set(printed.split())


def test_the_node_is_where_ros2_run_looks_and_says_what_it_lacks():
    node = Path(get_package_prefix(NAME), "lib", NAME, "policy_node")
    end = subprocess.run(
        [node, "--ros-args", "-p", "autostart:=true"], capture_output=True, text=True, timeout=120, check=False
    )
    assert end.returncode == 2
    assert "no checkpoint; set the parameter `checkpoint`" in end.stderr
