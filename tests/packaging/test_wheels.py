"""The three wheels, built and installed into an environment that has their dependencies and none of this checkout."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from metadata import FOLDERS, ROOT

pytestmark = pytest.mark.slow
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def run(command: list, cwd: Path) -> subprocess.CompletedProcess:
    """Run a command without variables that lead to this checkout; fails the test with its output."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> list[Path]:
    """The wheels, built from a copy of what git tracks."""
    tmp = tmp_path_factory.mktemp("wheels")
    sources = []
    for name, folder in FOLDERS.items():
        listed = subprocess.run(["git", "ls-files"], cwd=folder, capture_output=True, text=True, check=True)
        for file in filter(lambda file: (folder / file).exists(), listed.stdout.splitlines()):
            (tmp / name / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / file, tmp / name / file)
        sources.append(tmp / name)
    run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp / "dist", *sources], tmp)
    return sorted((tmp / "dist").iterdir())


@pytest.fixture(scope="module")
def venv(wheels, tmp_path_factory) -> Path:
    """An environment with the wheels, and with the dependencies of this one: its .pth files are not followed there."""
    venv = tmp_path_factory.mktemp("venv")
    run([sys.executable, "-m", "venv", "--without-pip", venv], venv)
    paths = sysconfig.get_paths(vars={"base": str(venv), "platbase": str(venv)})
    Path(paths["purelib"], "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run([*PIP, "--python", venv / "bin/python", "install", "--no-deps", "--no-index", *wheels], venv)
    return venv


def test_the_wheels_carry_files_licence_and_type_marker(wheels):
    assert [wheel.name for wheel in wheels] == [
        f"{name}-0.1.0-py3-none-any.whl" for name in ("m2distill", "m2distill_policy", "m2distill_sim")
    ]
    policy = zipfile.ZipFile(wheels[1]).namelist()
    package = ROOT / "ros2_ws/src/m2distill_policy/m2distill_policy"
    data = [path for folder in ("config", "starter") for path in (package / folder).rglob("*") if path.is_file()]
    assert [path for path in data if f"m2distill_policy/{path.relative_to(package)}" not in policy] == []
    shared = "m2distill_policy-0.1.0.data/data/share/m2distill_policy"
    assert {f"{shared}/launch/run.launch.py", f"{shared}/rviz/m2distill.rviz", f"{shared}/package.xml"} <= {*policy}
    for wheel in wheels:
        files = zipfile.ZipFile(wheel).namelist()
        assert any(file.endswith("LICENSE") for file in files) and any(file.endswith("/py.typed") for file in files)
        assert [file for file in files if "/test" in file or file.startswith("test")] == []


def test_the_declared_dependencies_are_satisfied(venv):
    command = [*PIP, "--python", str(venv / "bin/python"), "check"]
    found = subprocess.run(command, cwd=venv, capture_output=True, text=True, timeout=120, check=False).stdout
    assert [line for line in found.splitlines() if line.startswith("m2distill")] == []


def test_nodes_are_where_ros2_run_looks(venv):
    for package, node in (("m2distill_policy", "policy_node"), ("m2distill_sim", "sim_node")):
        assert os.access(venv / "lib" / package / node, os.X_OK)
        assert (venv / "share/ament_index/resource_index/packages" / package).is_file()


def test_the_installed_command_trains(venv, tmp_path):
    spec = importlib.util.spec_from_file_location("writer", ROOT / "tests/training/conftest.py")
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    file = writer.write_libero_file(tmp_path / "demos.hdf5", size_px=64)
    command = [venv / "bin/m2distill", "train", "--preset", "debug", "--data", file, "--out", "run"]
    run(command, tmp_path)
    assert list((tmp_path / "run").rglob("weights.safetensors"))
    where = "import m2distill_training, m2distill_policy as p; print(m2distill_training.__file__, p.__file__)"
    assert run([venv / "bin/python", "-c", where], tmp_path).stdout.count(str(venv)) == 2
