"""docs/reference/commands.md is what the commands say of themselves now. (nodes.md: tests/ros/test_reference.py.)"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_commands_page_is_what_the_commands_say(tmp_path):
    subprocess.run([sys.executable, ROOT / "scripts/reference.py", "commands.md", "--out", tmp_path], check=True)
    assert (tmp_path / "commands.md").read_text() == (ROOT / "docs/reference/commands.md").read_text(), \
        "run `make reference` and commit docs/reference"


def test_every_option_is_described():
    rows = re.findall(r"^\| `(.+?)` \|.*\| (.*?) ?\|$", (ROOT / "docs/reference/commands.md").read_text(), re.M)
    assert len(rows) > 100
    assert [option for option, meaning in rows if not meaning] == []
