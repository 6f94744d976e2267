"""A ROS domain of its own for nodes that must reach no other system. No ROS import here."""

import contextlib
import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from m2distill_policy.errors import UserError

# 0 is that of systems without a ROS_DOMAIN_ID. Above 101 are ports that Linux gives to any program.
DOMAINS = range(1, 102)


@contextlib.contextmanager
def own_domain() -> Iterator[dict[str, str]]:
    """Reserve a ROS domain while the block runs and yield the environment variables of its processes.

    A locked file in the folder for temporary files keeps other programs of m2distill on this machine out of it. Its
    traffic stays on this machine, whatever the environment sets.

    Raises:
        UserError: All domains are in use.
    """
    for domain in DOMAINS:
        if file := _lock(domain):
            break
    else:
        raise UserError(
            f"other programs use all ROS domains from {DOMAINS[0]} to {DOMAINS[-1]}, or {tempfile.gettempdir()} cannot "
            "be written; end some of them, or set TMPDIR"
        )
    with file:
        yield {
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_STATIC_PEERS": "",
        }


def _lock(domain: int) -> TextIO | None:
    """Return the locked file of a domain, or None if it is in use or another user's."""
    with contextlib.suppress(OSError):
        file = (Path(tempfile.gettempdir()) / f"m2distill-ros-domain-{domain}.lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
        else:
            return file
    return None
