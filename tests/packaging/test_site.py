"""The documentation site: links out of docs/, and a build without a warning."""

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from metadata import ROOT

URL = "https://github.com/m2distill/m2distill"


def rewritten(markdown: str) -> str:
    """Return what the hook makes of a page docs/tutorials/x.md."""
    spec = importlib.util.spec_from_file_location("mkdocs_hooks", ROOT / "scripts/mkdocs_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = SimpleNamespace(file=SimpleNamespace(abs_src_path=str(ROOT / "docs/tutorials/x.md")))
    config = SimpleNamespace(docs_dir=str(ROOT / "docs"), repo_url=URL)
    return hooks.on_page_markdown(markdown, page=page, config=config, files=None)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("../../CHANGELOG.md", f"{URL}/blob/main/CHANGELOG.md"),
        ("../../README.md#over-ros-2", f"{URL}/blob/main/README.md#over-ros-2"),
        ("../../tests/ros", f"{URL}/tree/main/tests/ros"),
        ("../install.md#make-setup", "../install.md#make-setup"),
        ("../../no/such/file.md", "../../no/such/file.md"),
        ("../../../etc", "../../../etc"),
        ("#here", "#here"),
        ("https://example.org/a.md", "https://example.org/a.md"),
    ],
)
def test_a_link_out_of_docs_leads_to_the_hosted_repository(link, expected):
    assert rewritten(f"See [this]({link}).") == f"See [this]({expected})."


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("material"), reason="mkdocs-material is not installed")
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "index.html").is_file()
