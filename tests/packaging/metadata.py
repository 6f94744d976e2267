"""What the distributions and the ROS packages declare, and what their code imports."""

import ast
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = {  # distribution -> its folder
    "m2distill-policy": ROOT / "ros2_ws/src/m2distill_policy",
    "m2distill-sim": ROOT / "ros2_ws/src/m2distill_sim",
    "m2distill": ROOT / "training",
}
INTERFACES = ROOT / "ros2_ws/src/m2distill_interfaces"
READ = """
import json, runpy, sys
from pathlib import Path
from unittest.mock import patch
import setuptools
distribution = setuptools.Distribution()
if Path("setup.py").exists():
    with patch("setuptools.setup") as setup:
        runpy.run_path("setup.py")
    distribution = setuptools.Distribution(setup.call_args.kwargs)
distribution.parse_config_files()
metadata = distribution.metadata
names = ("name", "version", "description", "author", "author_email", "maintainer", "maintainer_email", "url",
         "classifiers", "project_urls")
found = {name: getattr(metadata, name) for name in names}
found["license"] = getattr(metadata, "license_expression", None) or metadata.license
found["python_requires"] = str(distribution.python_requires)
found["install_requires"] = list(distribution.install_requires)
found["extras_require"] = {name: list(packages) for name, packages in distribution.extras_require.items()}
json.dump(found, sys.stdout)
"""


@cache
def declared(distribution: str) -> dict:
    """Return what setup.py or pyproject.toml declares."""
    command = [sys.executable, "-W", "ignore", "-c", READ]
    done = subprocess.run(command, cwd=FOLDERS[distribution], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def names(requirements: list[str]) -> set[str]:
    """Return the normalized names of requirements, without extras and versions."""
    return {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", text)[0]).lower() for text in requirements}


def manifest(folder: Path) -> ET.Element:
    """Return the root of a ROS package's package.xml."""
    return ET.parse(folder / "package.xml").getroot()


def imported(*folders: Path) -> set[str]:
    """Return the top-level names of the modules that the Python files below `folders` import, Python's own left out."""
    found = set()
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module or "")
    return {name.partition(".")[0] for name in found} - sys.stdlib_module_names
