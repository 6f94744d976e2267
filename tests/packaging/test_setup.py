"""`make setup` decides by interpreter, processor and shell what it installs; `--plan` prints it, and installs nothing.

Scripts stand in for the interpreter and for uname.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / "scripts/setup.sh"
SHELL = ("ROS_DISTRO", "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "M2DISTILL_ROS")  # variables that decide


def plan(folder: Path, processor: str = "x86_64", python: str = "", **variables: str) -> subprocess.CompletedProcess:
    """Return what `--plan` prints on a processor, with a script in place of Python, in a shell with these variables."""
    for name, lines in (("uname", f"echo {processor}"), ("python", python or f'exec {sys.executable} "$@"')):
        (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
        (folder / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name not in SHELL} | variables
    environment |= {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": str(folder / "python")}
    return subprocess.run(
        ["bash", SETUP, "--plan"], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("processor", "variables", "expected"),
    [
        ("x86_64", {}, "on x86_64; ROS 2 Jazzy from PyPI wheels (no distribution is sourced)"),
        ("x86_64", {"M2DISTILL_ROS": "no"}, "training, simulation and evaluation without ROS 2 (as M2DISTILL_ROS=no"),
        ("aarch64", {}, "without ROS 2 (there are no wheels for aarch64 and no distribution is sourced)"),
    ],
)
def test_what_is_installed_depends_on_the_processor_and_the_user(tmp_path, processor, variables, expected):
    found = plan(tmp_path, processor, **variables)
    assert (found.returncode, found.stderr) == (0, "") and expected in found.stdout


@pytest.mark.parametrize("processor", ["x86_64", "aarch64"])
def test_a_sourced_distribution_is_used_on_every_processor_if_this_python_has_its_rclpy(tmp_path, processor):
    has = f'case "$*" in *rclpy*) exit 0;; esac; exec {sys.executable} "$@"'
    found = plan(tmp_path, processor, has, ROS_DISTRO="lyrical")
    assert "ROS 2 of the distribution (lyrical is sourced)" in found.stdout and found.returncode == 0
    lacks = f'case "$*" in *rclpy*) exit 1;; esac; exec {sys.executable} "$@"'
    found = plan(tmp_path, processor, lacks, ROS_DISTRO="lyrical")
    assert found.returncode == 1 and found.stdout == ""
    (line,) = found.stderr.splitlines()
    assert line.startswith("setup: ROS 2 lyrical is sourced, and Python") and "/usr/bin/python3" in line


def test_a_python_without_pinned_versions_is_rejected_in_one_line(tmp_path):
    old = 'case "$1" in --version) echo Python 3.9.18;; *) exit 1;; esac'
    found = plan(tmp_path, python=old)
    (line,) = found.stderr.splitlines()
    assert line.startswith("setup: Python 3.9.18 found, Python 3.10 to 3.13 needed")
    assert line.endswith("set PYTHON=/path/to/python3") and found.returncode == 1


COLCON = """#!/bin/sh
echo build >> "$(dirname "$0")/builds"
[ ! -e "$(dirname "$0")/broken" ] && mkdir -p ../.venv/share/m2distill_interfaces install
"""


def test_the_workspace_is_built_again_only_if_a_source_or_the_installation_changed(tmp_path):
    """A script stands in for colcon, which is called twice in a build, for the messages and for the Python packages."""
    for folder in (
        "scripts",
        ".venv/bin",
        ".venv/share/rosidl_default_generators",
        "ros2_ws/src",
        "ros2_ws/wheel_messages/x",
    ):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("build_workspace.sh", "fix_ros_wheels.py"):
        shutil.copy(SETUP.with_name(name), tmp_path / "scripts")
    for name, script in (("colcon", COLCON), ("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')):
        (tmp_path / ".venv/bin" / name).write_text(script)
        (tmp_path / ".venv/bin" / name).chmod(0o755)
    (tmp_path / "scripts/fix_ros_wheels.py").write_text("")
    source, builds, broken = (tmp_path / name for name in ("ros2_ws/src/a.msg", ".venv/bin/builds", ".venv/bin/broken"))

    def built() -> int:
        """Run the script; return how often colcon was called."""
        builds.unlink(missing_ok=True)
        script = tmp_path / "scripts/build_workspace.sh"
        subprocess.run(["bash", script], check=False, capture_output=True, timeout=60)
        return len(builds.read_text().splitlines()) if builds.exists() else 0

    source.write_text("int32 x\n")
    assert (built(), built()) == (2, 0)
    source.write_text("int32 y\n")
    broken.touch()
    assert (built(), built()) == (1, 1)  # what failed is tried again
    broken.unlink()
    assert (built(), built()) == (2, 0)
    (tmp_path / ".venv/m2distill-setup").write_text("other packages")
    assert (built(), built()) == (2, 0)
    for result in (tmp_path / ".venv/share/m2distill_interfaces", tmp_path / "ros2_ws/install"):
        shutil.rmtree(result)
        assert (built(), built()) == (2, 0)
