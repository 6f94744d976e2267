"""Licence, third-party notices, links, README and architecture page agree with the repository."""

import importlib.metadata
import re

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
ROS = ROOT / "ros2_ws/src/m2distill_policy/m2distill_policy/ros"


def families(text: str) -> set[str]:
    return {family for family, pattern in FAMILIES.items() if re.search(pattern, text)}


def required(file: str) -> list[str]:
    lines = (ROOT / file).read_text().splitlines()
    return [re.split(r"[<=>\[ #]", line)[0] for line in lines if re.match(r"[a-zA-Z]", line)]


def declared(package: str) -> str:
    """Return what an installed package states about its licence: metadata and licence files."""
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
    """Return the anchors of a page's headings, as GitHub generates them."""
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
    pages = [page for page in PAGES if page.is_relative_to(ROOT / "docs") and page != ROOT / "docs/README.md"]
    assert [page for page in pages if page not in linked] == []


def test_links_out_of_the_site_lead_to_files_of_the_repository():
    """scripts/mkdocs_hooks.py makes links to the hosted repository of them."""
    site = ROOT / "docs"
    for page in site.rglob("*.md"):
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text()):
            if not re.match(r"https?:", target):
                file = (page.parent / target).resolve()
                assert file.is_relative_to(site) or (file.is_relative_to(ROOT) and file.is_file()), f"{page}: {target}"


# --- architecture.md

ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()


def test_the_architecture_page_is_short_and_has_its_diagrams():
    assert ARCHITECTURE.count("```mermaid\n") == 4
    assert len(ARCHITECTURE.splitlines()) <= 130


def test_every_path_on_the_architecture_page_exists():
    prose = re.sub(r"^```.*?^```", "", ARCHITECTURE, flags=re.M | re.S)
    named = {code for code in re.findall(r"`([^`~]+)`", prose) if re.fullmatch(r"[\w./-]*(/|\.py|\.md)", code)}
    assert len(named) > 30
    missing = [name for name in named if not any((folder / name).exists() for folder in (ROOT, *SOURCES, ROS))]
    assert sorted(missing) == []


@pytest.mark.parametrize("source", [*SOURCES, ROS], ids=lambda source: source.name)
def test_every_folder_of_a_package_is_on_the_architecture_page(source):
    folders = [file.parent.name for file in source.glob("*/__init__.py")]
    assert folders
    assert [name for name in folders if f"`{name}/`" not in ARCHITECTURE] == []


# --- README.md


def sentences(text: str) -> list[str]:
    """Return the sentences of a page outside code, tables, images, lists of links and headings."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    prose = re.sub(r"^(    |\||#|!).*$", "", prose, flags=re.M)
    prose = re.sub(r"\]\([^)]*\)|[\[*`]", "", prose)
    blocks = re.split(r"\n\s*\n|^- ", prose, flags=re.M)
    found = [part for block in blocks for part in re.split(r"(?<=[.:])\s", " ".join(block.split()))]
    return [part for part in found if len(part.split()) > 1]


def test_sentences_of_a_page_are_found():
    page = (
        "# Title\n\nOne two. Three [four](x.md)\nfive.\n\n    code here\n\n| a b | c |\n\n- six seven\n- eight nine\n"
    )
    assert sentences(page) == ["One two.", "Three four five.", "six seven", "eight nine"]


def test_the_readme_is_short_and_its_sentences_too():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    words = [len(sentence.split()) for sentence in sentences(text)]
    assert len(words) > 20
    assert sum(words) / len(words) <= 20
    assert max(words) <= 35
