"""A ROS domain of its own for each test process, also beside those of other checkouts and of pytest-xdist."""

import contextlib
import fcntl
import tempfile
from pathlib import Path
from typing import TextIO

import pytest


def reserve_domain() -> tuple[int, TextIO]:
    """Return a ROS domain that no other test process of this machine uses, and the locked file that reserves it."""
    for domain in range(1, 88):  # tests use 88 for a system that others must not see
        file = (Path(tempfile.gettempdir()) / f"m2distill-ros-domain-{domain}.lock").open("a")
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return domain, file
        file.close()
    raise pytest.UsageError("87 other test processes use all ROS domains of this machine; end some of them")


DOMAIN, RESERVATION = reserve_domain()  # until the process ends
