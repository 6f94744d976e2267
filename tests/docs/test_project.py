"""Licence, notices, links, and the map of the modules: they say what is there."""

import importlib.metadata
import re
from pathlib import Path

import pytest
from pages import PAGES, ROOT

FAMILIES = {
    "MIT": r"\bMIT\b",
    "Apache-2.0": r"Apache",
    "BSD": r"\bBSD|Redistribution and use in source and binary",
    "MPL-2.0": r"\bMPL|Mozilla",
    "PSF": r"Python Software Foundation|\bPSF|matplotlib versions",
}
SOURCES = [
    ROOT / "ros2_ws/src/m2distill_policy/m2distill_policy",
    ROOT / "ros2_ws/src/m2distill_sim/m2distill_sim",
    ROOT / "training/m2distill_training",
]


def families(text: str) -> set[str]:
    return {family for family, pattern in FAMILIES.items() if re.search(pattern, text)}


def required(file: str) -> list[str]:
    lines = (ROOT / file).read_text().splitlines()
    return [re.split(r"[<=>\[ #]", line)[0] for line in lines if re.match(r"[a-zA-Z]", line)]


def declared(package: str) -> str:
    """All that an installed package says of its licence: metadata, and the texts that it carries."""
    found = importlib.metadata.distribution(package)
    texts = [
        file.locate().read_text(errors="replace")[:500]
        for file in found.files or []
        if re.search(r"dist-info/(licenses/)?(LICENSE|COPYING)[^/]*$", str(file))
    ]
    fields = [
        found.metadata.get("License-Expression"),
        found.metadata.get("License"),
        *(c for c in found.metadata.get_all("Classifier") or [] if c.startswith("License")),
    ]
    return "\n".join([*(field[:500] for field in fields if field), *texts])


NOTICES = dict(re.findall(r"^\| ([\w-]+) \| ([\w.-]+) \|", (ROOT / "THIRD_PARTY_NOTICES.md").read_text(), re.M))


@pytest.mark.parametrize("package", required("requirements.txt"))
def test_a_dependency_has_the_licence_that_the_notices_give(package):
    assert package in NOTICES, "THIRD_PARTY_NOTICES.md lacks a row for it"
    try:
        text = declared(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed here; `make setup` installs it")
    assert families(NOTICES[package]) <= families(text), text


def test_the_ros_wheels_are_under_the_licence_that_the_notices_give():
    assert {line for line in required("requirements-ros.txt") if not line.startswith("ros-")} <= NOTICES.keys()
    installed = {found.metadata["Name"]: found for found in importlib.metadata.distributions()}
    # a ros-jazzy-X has no files of its own and brings ros-X
    names = [name.replace("ros-jazzy-", "ros-") for name in required("requirements-ros.txt")]
    wheels = [installed[name] for name in names if name.startswith("ros-") and name in installed]
    manifests = [file.locate() for wheel in wheels for file in wheel.files or [] if file.name == "package.xml"]
    if not wheels:
        pytest.skip("ROS 2 is a distribution's here")
    assert len(manifests) > 10
    assert [m for m in manifests if "<license>Apache License 2.0</license>" not in m.read_text()] == []


def test_the_project_is_under_one_licence():
    assert (ROOT / "LICENSE").read_text().split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert 'license = "Apache-2.0"' in (ROOT / "training/pyproject.toml").read_text()
    for manifest in (ROOT / "ros2_ws/src").glob("*/package.xml"):
        assert "Apache-2.0</license>" in manifest.read_text(), manifest


# --- links


def slugs(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in slugs(file.read_text())):
            dead.append(target)
    assert dead == []


def test_every_page_is_reached_from_the_index():
    index = (ROOT / "docs/README.md").read_text()
    linked = {(ROOT / "docs" / target.split("#")[0]).resolve() for target in re.findall(r"\]\(([^)]+)\)", index)}
    assert [page for page in PAGES if page not in linked | {ROOT / "README.md", ROOT / "docs/README.md"}] == []


# --- the map of the modules

ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()


def test_every_module_that_the_map_names_is_there():
    names = {path.relative_to(folder).as_posix() for folder in SOURCES for path in folder.rglob("*.py")}
    named = set(re.findall(r"(?<![\w./-])((?:[a-z_]+/)*[a-z_]+\.py)\b", ARCHITECTURE))
    rest = {name for name in named if not any(n == name or n.endswith(f"/{name}") for n in names)}
    assert sorted(name for name in rest if not (ROOT / name).exists()) == []


def test_every_module_is_on_the_map():
    """By its name, or by that of its folder: `models/`."""

    def shown(name: Path) -> bool:
        folders = [parent.name for parent in name.parents if parent.name not in ("", "ros", "data")]
        return any(
            re.search(rf"(?<!\w){re.escape(word)}", ARCHITECTURE)
            for word in (name.name, *(f"{folder}/" for folder in folders))
        )

    names = [path.relative_to(folder) for folder in SOURCES for path in folder.rglob("*.py")]
    assert [str(name) for name in names if not name.stem.startswith("__") and not shown(name)] == []
