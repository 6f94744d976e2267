"""The import rule of docs/architecture.md, checked in the source and in a new interpreter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "ros2_ws/src/m2distill_policy/m2distill_policy"
SIM = ROOT / "ros2_ws/src/m2distill_sim/m2distill_sim"
TRAINING = ROOT / "training/m2distill_training"
TESTS = ROOT / "tests"
OURS = ("m2distill_policy", "m2distill_sim", "m2distill_training", "m2distill_interfaces")
ROS = (
    "rclpy",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
    "geometry_msgs",
    "diagnostic_msgs",
    "lifecycle_msgs",
    "rosgraph_msgs",
    "rcl_interfaces",
    "action_msgs",
    "builtin_interfaces",
    "control_msgs",
    "moveit_msgs",
    "tf2_msgs",
    "launch",
    "launch_ros",
)
SIMULATING = (
    "cli",
    "bench",
    "evaluation",
    "experiments",
    "promotion",
)  # folders of training that may use the simulator


def _sources(folder: Path, *, ros: bool, simulating: bool | None = None) -> list[Path]:
    """Return files below `folder`: with `ros` those in folders named ros, with `simulating` those that may simulate."""

    def is_wanted(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        return ("ros" in parts) == ros and (simulating is None or (parts[0] in SIMULATING) == simulating)

    return [path for path in folder.rglob("*.py") if is_wanted(path)]


POLICY_CORE = ("m2distill_policy", "!m2distill_policy.ros")
SIM_USES = ("cameras", "errors", "observations.poses", "suites", "utils.files", "utils.schema")
SIM_CORE = ("m2distill_sim", "!m2distill_sim.ros")
ROS_COMMON = "m2distill_policy.ros.common"

ROOMS = {  # files, what of ours they may import ("!" takes away), and whether ROS
    "policy core": (_sources(POLICY, ros=False), POLICY_CORE, False),
    "models": (
        list((POLICY / "models").rglob("*.py")),
        tuple(f"m2distill_policy.{name}" for name in ("models", "spec", "action", "errors", "utils.schema")),
        False,
    ),
    "policy.ros": (_sources(POLICY, ros=True), ("m2distill_policy", "m2distill_interfaces"), True),
    "sim core": (
        _sources(SIM, ros=False),
        (
            *SIM_CORE,
            *(f"m2distill_policy.{name}" for name in SIM_USES),
        ),
        False,
    ),
    "sim.ros": (_sources(SIM, ros=True), ("m2distill_sim", *POLICY_CORE, ROS_COMMON), True),
    "learning": (_sources(TRAINING, ros=False, simulating=False), ("m2distill_training", *POLICY_CORE), False),
    "running what was learned": (
        _sources(TRAINING, ros=False, simulating=True),
        ("m2distill_training", *POLICY_CORE, *SIM_CORE),
        False,
    ),
    "training.ros": (
        _sources(TRAINING, ros=True),
        ("m2distill_training", "m2distill_policy", "m2distill_interfaces"),
        True,
    ),
    "launch": (
        list((ROOT / "launch").glob("*.py")),
        ("m2distill_policy.bringup", "m2distill_policy.ros.common.launch_description"),
        True,
    ),
    "tests without ROS": (
        [path for room in ("policy", "training", "sim", "fuzz", "docs") for path in (TESTS / room).rglob("*.py")],
        ("m2distill_training", *POLICY_CORE, *SIM_CORE),
        False,
    ),
}


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _within(name: str, packages) -> int:
    """Return the length of the longest of `packages` that contains `name`; 0 if none does."""
    return max((len(p) for p in packages if name == p or name.startswith(p + ".")), default=0)


def _allowed(name: str, own: tuple[str, ...], ros: bool) -> bool:
    if _within(name, OURS):
        return _within(name, [p for p in own if p[0] != "!"]) > _within(name, [p[1:] for p in own if p[0] == "!"])
    return ros or not _within(name, ROS)


@pytest.mark.parametrize("room", ROOMS)
def test_no_package_imports_what_it_may_not(room):
    files, own, ros = ROOMS[room]
    assert files
    assert [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in sorted(_imports(path))
        if not _allowed(name, own, ros)
    ] == []


@pytest.mark.parametrize(
    ("room", "name", "allowed"),
    [
        ("policy core", "m2distill_policy.spec.PolicySpec", True),
        ("policy core", "m2distill_policy.ros", False),
        ("policy core", "m2distill_sim.suites", False),
        ("policy core", "rclpy", False),
        ("policy core", "torch", True),
        ("models", "m2distill_policy.control.session", False),
        ("sim core", "m2distill_policy.spec", False),
        ("sim.ros", "m2distill_policy.ros.common.conversions", True),
        ("sim.ros", "m2distill_policy.ros.policy.execute_server", False),
        ("sim.ros", "m2distill_policy.spec", True),
        ("policy.ros", "m2distill_training.engine.train", False),
        ("learning", "m2distill_sim.suites", False),
        ("running what was learned", "m2distill_sim.ros.video", False),
        ("tests without ROS", "m2distill_policy.ros.common.conversions", False),
        ("tests without ROS", "std_msgs.msg.Bool", False),
    ],
)
def test_the_rule_equals_that_of_the_architecture(room, name, allowed):
    assert _allowed(name, *ROOMS[room][1:]) == allowed


def test_no_other_node_imports_the_dashboard():
    dashboard, node = POLICY / "ros/dashboard", POLICY / "ros/nodes/dashboard_node.py"
    others = [path for path in POLICY.rglob("*.py") if dashboard not in path.parents and path != node]
    web = ("m2distill_policy.ros.dashboard", "starlette", "uvicorn", "websockets")
    assert [path for path in others for name in _imports(path) if _within(name, web)] == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("m2distill_policy.control.session", ["torch", "rclpy", "transformers"]),
        ("m2distill_policy.bringup.system", ["torch", "rclpy"]),
        ("m2distill_policy.language.text_encoder", ["torch", "transformers"]),
        ("m2distill_sim.libero_env", ["torch", "rclpy", "robosuite", "libero"]),
        ("m2distill_training.cli.main", ["torch", "mujoco", "argcomplete"]),
    ],
)
def test_importing_a_light_module_stays_light(module, absent):
    code = f"import sys, {module}; print([m for m in {absent!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.strip() == "[]"
