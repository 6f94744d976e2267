"""docs/dev/reliability.md names existing tests."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (ROOT / "docs/dev/reliability.md").read_text().splitlines()
    if line.startswith("| ") and not re.match(r"\| (fault|files) \|", line)
]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_names_an_existing_test_or_is_marked_untested(row):
    shown = row.split("|")[3].strip()
    if shown.startswith("untested: "):
        return
    file, name = re.fullmatch(r"`([\w/]+\.py)::(test_\w+)`", shown).groups()
    tree = ast.parse((ROOT / "tests" / file).read_text())
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_every_kind_of_fault_has_its_rows():
    assert len(ROWS) > 40
