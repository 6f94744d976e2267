"""docs/dev/reliability.md, docs/dev/faults.md and docs/dev/data_faults.md name existing tests."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (ROOT / "docs/dev/reliability.md").read_text().splitlines()
    if line.startswith("| ") and line.count("|") == 4 and not re.match(r"\| (fault|files|writer|what) \|", line)
]

FAULTS = (ROOT / "docs/dev/faults.md").read_text()
DATA_FAULTS = (ROOT / "docs/dev/data_faults.md").read_text()


@pytest.mark.parametrize("row", ROWS)
def test_a_row_names_an_existing_test_or_is_marked_untested(row):
    shown = row.split("|")[3].strip()
    if shown.startswith("untested: "):
        return
    assert_exists(shown)


def assert_exists(shown: str) -> None:
    file, name = re.fullmatch(r"`([\w/]+\.py)::(test_\w+)`", shown).groups()
    tree = ast.parse((ROOT / "tests" / file).read_text())
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_every_kind_of_fault_has_its_rows():
    assert len(ROWS) > 40


@pytest.mark.parametrize("row", re.findall(r"^\| (\d+) \|.*\| (.*) \|$", DATA_FAULTS, re.M))
def test_a_fault_of_data_names_existing_tests(row):
    for shown in row[1].split(", "):
        assert_exists(shown)


def test_every_fault_of_data_has_its_row():
    assert re.findall(r"^\| (\d+) \|", DATA_FAULTS, re.M) == [str(number) for number in range(1, 21)]


@pytest.mark.parametrize("row", re.findall(r"^\| ([A-S]\d*) \|.*\| (.*) \|$", FAULTS, re.M))
def test_a_fault_at_the_robot_names_existing_tests(row):
    for shown in row[1].split(", "):
        assert_exists(shown)


def test_every_fault_at_the_robot_has_its_row():
    expected = [*"ABCDEFGHIJKLMNOPQR", *(f"S{number}" for number in range(1, 12))]
    assert re.findall(r"^\| ([A-S]\d*) \|", FAULTS, re.M) == expected
