"""The limits of CONTRIBUTING.md for the length of modules, classes and functions hold in the whole repository."""

import ast
import re

import pytest
from pages import ROOT

MODULE, CLASS, FUNCTION = 400, 250, 60  # lines


def python_files() -> list[str]:
    folders = ("ros2_ws/src", "training", "tests", "scripts")
    return [str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*.py")]


def too_long(text: str, *, product: bool) -> list[str]:
    """Return what exceeds its limit in a module; classes and functions only of product code."""
    length = len(text.splitlines())
    found = [f"module: {length} lines, allowed {MODULE}"] if length > MODULE else []
    for node in ast.walk(ast.parse(text)) if product else ():
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            limit = CLASS if isinstance(node, ast.ClassDef) else FUNCTION
            if length > limit:
                found.append(f"line {node.lineno}, {node.name}: {length} lines, allowed {limit}")
    return found


def test_no_module_class_or_function_is_too_long():
    names = python_files()
    assert len(names) > 300
    found = {name: too_long((ROOT / name).read_text(), product=not name.startswith("tests/")) for name in names}
    assert {name: places for name, places in found.items() if places} == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n" * (MODULE + 1), ["module: 401 lines, allowed 400"]),
        ("class A:\n" + "    x = 1\n" * CLASS, ["line 1, A: 251 lines, allowed 250"]),
        ("x = 1\ndef f():\n" + "    x = 1\n" * FUNCTION, ["line 2, f: 61 lines, allowed 60"]),
        ("class A:\n    async def f():\n" + "        x = 1\n" * FUNCTION, ["line 2, f: 61 lines, allowed 60"]),
        ("def f():\n" + "    x = 1\n" * (FUNCTION - 1), []),
    ],
)
def test_what_is_too_long_is_named(text, said):
    assert too_long(text, product=True) == said
    assert too_long(text, product=False) == [place for place in said if place.startswith("module")]


def test_contributing_names_the_same_limits():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    stated = re.search(r"modules up to (\d+) lines, classes up to (\d+), functions up to (\d+)", " ".join(page.split()))
    assert stated and tuple(map(int, stated.groups())) == (MODULE, CLASS, FUNCTION)
