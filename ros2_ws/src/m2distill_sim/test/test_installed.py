"""Run by `colcon test`: what was installed is whole. How it behaves is tested in the repository's tests/."""

import subprocess
from pathlib import Path

from ament_index_python.packages import get_package_prefix


def test_the_node_is_where_ros2_run_looks_and_says_what_it_lacks():
    node = Path(get_package_prefix("m2distill_sim"), "lib", "m2distill_sim", "sim_node")
    end = subprocess.run(
        [node, "--ros-args", "-p", "suite:=libero_objekt"], capture_output=True, text=True, timeout=120, check=False
    )
    assert end.returncode == 2
    assert "did you mean 'libero_object'?" in end.stderr
