"""A ROS 2 workspace for packages that are copied there alone, built as scripts/build_workspace.sh builds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "ros2_ws/src"
WHEELS = Path(sys.prefix)  # the ROS 2 wheels, when there are some
HAS_WHEELS = (WHEELS / "share/rosidl_default_generators").is_dir()
BUILT = {"build", "install", "log"}
WORKSPACE = ("theirs", "ws")
CHECKOUT = (
    "src/theirs/checkout/src"  # deeper than build/NAME: a path with ../ leads elsewhere from there than from here
)
LIBRARY = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def environment(**variables: str) -> dict[str, str]:
    """Return the environment for colcon and for nodes: the ROS 2 of this Python, and nothing written beside sources."""
    variables = {"PYTHONDONTWRITEBYTECODE": "1", "COLCON_DEFAULTS_FILE": os.devnull, **variables}
    if HAS_WHEELS:
        variables = {"AMENT_PREFIX_PATH": str(WHEELS), "CMAKE_PREFIX_PATH": str(WHEELS), **variables}
    path = f"{WHEELS / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **variables}


def copy_package(name: str, workspace: Path) -> None:
    """Copy one package into the `workspace`, as `git clone` gives it."""
    listed = subprocess.run(["git", "ls-files", name], cwd=SOURCES, capture_output=True, text=True, check=True)
    for file in listed.stdout.splitlines():
        copy = workspace / CHECKOUT / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (SOURCES / file).exists():  # a file may be deleted and not yet committed
            shutil.copy(SOURCES / file, copy, follow_symlinks=False)


def build(workspace: Path, *options: str, cmake_options: tuple[str, ...] = ()) -> None:
    """Run `colcon build` in `workspace`; fails the test with colcon's output."""
    colcon = [sys.executable, "-m", "colcon"] if HAS_WHEELS else ["colcon"]
    command = [*colcon, "build", "--event-handlers", "console_direct+", *options, "--cmake-args", "-DBUILD_TESTING=OFF"]
    command += cmake_options
    if HAS_WHEELS:
        command.append(f"-DPython3_EXECUTABLE={sys.executable}")
    done = subprocess.run(command, cwd=workspace, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def snapshot(folder: Path) -> dict[str, tuple[int, bytes | str]]:
    """Return path -> (mode, content or link target) of every file below `folder`, without the folders of colcon."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if relative.parts[:2] == WORKSPACE and relative.parts[2:3] and relative.parts[2] in BUILT:
            continue
        if path.is_symlink():
            found[str(relative)] = (0, os.readlink(path))
        elif path.is_file():
            found[str(relative)] = (path.stat().st_mode, path.read_bytes())
    return found


def run_node(
    workspace: Path, package: str, node: str, *arguments: str, **variables: str
) -> subprocess.CompletedProcess:
    """Start an installed node with `workspace` sourced, and return when it has ended."""
    script = f"source {workspace}/install/local_setup.bash && exec {workspace}/install/{package}/lib/{package}/{node} "
    return subprocess.run(
        ["bash", "-c", script + '"$@"', "bash", *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd="/",
    )
