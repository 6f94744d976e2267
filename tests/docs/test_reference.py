"""docs/reference/commands.md matches the --help of the commands. tests/ros/test_reference.py checks nodes.md."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/commands.md").read_text()


def test_the_commands_page_is_up_to_date():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts/reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert reference.cli_page() == PAGE, "run `make reference` and commit docs/reference"


def test_every_option_is_described():
    rows = re.findall(r"^\| `(.+?)` \|.*\| (.*?) ?\|$", PAGE, re.M)
    assert len(rows) > 100
    assert [option for option, meaning in rows if not meaning] == []
