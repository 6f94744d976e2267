"""Checks that `colcon test` runs on the installed package; its behaviour is tested in the repository's tests/."""

import subprocess
from pathlib import Path

from ament_index_python.packages import get_package_prefix

NODE = Path(get_package_prefix("m2distill_sim"), "lib", "m2distill_sim", "sim_node")


def test_the_node_starts_with_the_python_on_the_path():
    assert NODE.read_text().startswith("#!/usr/bin/env python3\n")


def test_the_node_reports_an_unknown_suite():
    end = subprocess.run(
        [NODE, "--ros-args", "-p", "suite:=libero_objekt"], capture_output=True, text=True, timeout=120, check=False
    )
    assert end.returncode == 2
    assert "did you mean 'libero_object'?" in end.stderr
