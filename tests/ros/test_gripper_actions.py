"""Both gripper actions of control_msgs, which are built here because the wheels lack them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from m2distill_policy.ros.policy import gripper

TEST = str(Path(__file__).with_name("test_outputs.py"))


@pytest.mark.slow
def test_both_gripper_actions_with_control_msgs_from_source(request):
    """Build the two actions, which the wheels lack, and run the test of test_outputs.py with them."""
    if gripper.ParallelGripperCommand is not None:
        pytest.skip("control_msgs is installed, and the test of test_outputs.py has run")
    base, prefix = request.config.cache.mkdir("control_msgs"), Path(sys.prefix)
    variables = {**os.environ, "AMENT_PREFIX_PATH": str(prefix), "CMAKE_PREFIX_PATH": str(prefix)}
    build = [prefix / "bin" / "colcon", "--log-base", "log", "build", "--merge-install", "--base-paths"]
    build += [Path(__file__).parent / "control_msgs", "--cmake-args", "-DBUILD_TESTING=OFF"]
    subprocess.run([*build, f"-DPython3_EXECUTABLE={sys.executable}"], cwd=base, env=variables, check=True)
    (packages,) = base.glob("install/lib/python*/site-packages")
    for name, path in (("PYTHONPATH", packages), ("LD_LIBRARY_PATH", base / "install" / "lib")):
        variables[name] = os.pathsep.join(filter(None, [str(path), os.environ.get(name, "")]))
    command = [sys.executable, "-m", "pytest", "-q", TEST, "-k", "receives_few_goals", "-p", "no:cacheprovider"]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert "2 passed" in ended.stdout, ended.stdout + ended.stderr
