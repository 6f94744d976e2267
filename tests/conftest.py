"""Markers by folder and by file: `-m "not slow and not ros and not sim"` leaves the quick tests of `make check`."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOLDERS = {"ros": ["ros"], "e2e": ["ros", "sim", "slow"], "sim": ["sim"]}
SLOW: set[str] = set()  # files whose tests take over 10 s on an idle core


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE not in item.path.parents:
            continue
        relative = item.path.relative_to(HERE)
        for name in FOLDERS.get(relative.parts[0], []):
            item.add_marker(name)
        if str(relative) in SLOW:
            item.add_marker("slow")
