"""`make setup` decides by interpreter, processor and shell what it installs; `--plan` prints it, and installs nothing.

Scripts stand in for the interpreter and for uname.
"""

import os
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
