"""Every message that docs/troubleshooting.md quotes exists in the source."""

import ast
import re
from functools import cache

from pages import ROOT

PAGE = (ROOT / "docs/troubleshooting.md").read_text()
SOURCES = [
    ROOT / "ros2_ws/src/m2distill_policy/m2distill_policy",
    ROOT / "ros2_ws/src/m2distill_sim/m2distill_sim",
    ROOT / "training/m2distill_training",
]
HOLE = "\0"  # where a value is put in


@cache
def texts() -> list[str]:
    """Return every string of the source, with values replaced by HOLE, and the set-up scripts as they are."""
    found = [path.read_text() for path in (ROOT / "scripts").glob("*.sh")]
    for path in (path for folder in SOURCES for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else HOLE for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def quoted() -> list[str]:
    return re.findall(r"^\| `([^`]+)`", PAGE, re.M)


def exists_in_source(message: str) -> bool:
    """Check whether the source can print `message`; `…` matches a value in the source, or anything in a script."""
    parts = [part.strip() for part in message.split("…")]
    pattern = re.compile(".+?".join(map(re.escape, parts)), re.S)
    return any(pattern.search(f"{HOLE}{text}{HOLE}") for text in texts() if all(part in text for part in parts))


def test_every_quoted_message_is_in_the_source():
    assert len(quoted()) > 40
    assert [message for message in quoted() if not exists_in_source(message)] == []


def test_a_message_that_does_not_exist_is_found():
    assert exists_in_source("…: no publisher") and not exists_in_source("…: no publishers at all")
