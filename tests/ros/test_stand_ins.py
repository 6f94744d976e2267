"""Interfaces that the wheels lack, built here: both gripper actions of control_msgs, and MoveIt Servo's service."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from m2distill_policy.ros.common import servo
from m2distill_policy.ros.policy import gripper

FOLDER = Path(__file__).parent
TESTS = [str(FOLDER / "test_outputs.py"), str(FOLDER / "test_servo.py")]


@pytest.mark.slow
def test_gripper_actions_and_servo_with_interfaces_from_source(request):
    """Build what the wheels lack, and run the tests that need it."""
    if gripper.ParallelGripperCommand is not None and servo.ServoCommandType is not None:
        pytest.skip("control_msgs and moveit_msgs are installed, and the tests have run")
    base, prefix = request.config.cache.mkdir("stand_ins"), Path(sys.prefix)
    variables = {**os.environ, "AMENT_PREFIX_PATH": str(prefix), "CMAKE_PREFIX_PATH": str(prefix)}
    build = [prefix / "bin" / "colcon", "--log-base", "log", "build", "--merge-install", "--base-paths"]
    build += [*(FOLDER / "stand_ins").glob("*/"), "--cmake-args", "-DBUILD_TESTING=OFF"]
    subprocess.run([*build, f"-DPython3_EXECUTABLE={sys.executable}"], cwd=base, env=variables, check=True)
    (packages,) = base.glob("install/lib/python*/site-packages")
    for name, path in (("PYTHONPATH", packages), ("LD_LIBRARY_PATH", base / "install" / "lib")):
        variables[name] = os.pathsep.join(filter(None, [str(path), os.environ.get(name, "")]))
    chosen = "receives_few_goals or with_moveit_msgs"
    command = [sys.executable, "-m", "pytest", "-q", *TESTS, "-k", chosen, "-p", "no:cacheprovider"]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert "4 passed" in ended.stdout, ended.stdout + ended.stderr
