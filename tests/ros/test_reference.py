"""docs/reference/nodes.md equals what the nodes declare now."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_nodes_page_is_what_the_nodes_declare(tmp_path):
    subprocess.run(
        [sys.executable, ROOT / "scripts/reference.py", "nodes.md", "--out", tmp_path], check=True, capture_output=True
    )
    assert (tmp_path / "nodes.md").read_text() == (ROOT / "docs/reference/nodes.md").read_text(), (
        "run `make reference` and commit docs/reference"
    )
