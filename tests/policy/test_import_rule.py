"""The import rule of docs/architecture.md, read from the source and, where it matters, from a fresh interpreter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "ros2_ws/src/m2distill_policy/m2distill_policy"
SIM = ROOT / "ros2_ws/src/m2distill_sim/m2distill_sim"
TRAINING = ROOT / "training/m2distill_training"
ROS = ("rclpy", "sensor_msgs", "std_msgs", "std_srvs", "geometry_msgs", "diagnostic_msgs", "lifecycle_msgs",
       "rosgraph_msgs", "builtin_interfaces", "m2distill_interfaces")

RULES = [  # (files, prefixes they may not import)
    ([p for p in POLICY.rglob("*.py") if "ros" not in p.relative_to(POLICY).parts],
     (*ROS, "m2distill_sim", "m2distill_training", "m2distill_policy.ros")),
    (list((POLICY / "ros").rglob("*.py")), ("m2distill_sim", "m2distill_training")),
    (list((POLICY / "models").rglob("*.py")), ("m2distill_policy.session", "m2distill_policy.inference")),
    ([p for p in SIM.rglob("*.py") if "ros" not in p.relative_to(SIM).parts],
     (*ROS, "m2distill_policy.ros", "m2distill_sim.ros", "m2distill_training", "torch")),
    (list((SIM / "ros").rglob("*.py")), ("m2distill_training", "torch")),
    ([p for p in TRAINING.rglob("*.py") if p.name != "robot.py"], (*ROS, "m2distill_policy.ros", "m2distill_sim.ros")),
]


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(("files", "forbidden"), RULES,
                         ids=["policy core", "policy.ros", "models", "sim core", "sim.ros", "training"])
def test_no_room_imports_what_it_may_not(files, forbidden):
    assert files
    broken = [f"{path.relative_to(ROOT)} imports {name}" for path in files for name in _imports(path)
              for prefix in forbidden if name == prefix or name.startswith(prefix + ".")]
    assert not broken


@pytest.mark.parametrize(("module", "absent"), [
    ("m2distill_policy.session", ["torch", "rclpy", "transformers"]),
    ("m2distill_policy.bringup", ["torch", "rclpy"]),
    ("m2distill_policy.text", ["torch", "transformers"]),
    ("m2distill_training.cli", ["torch", "mujoco", "matplotlib"]),
])
def test_importing_a_light_module_stays_light(module, absent):
    code = f"import sys, {module}; print([m for m in {absent!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.strip() == "[]"
