"""Checks of a cluster's nodes before they work: the shared folder, the versions, and what the jobs need.

The driver writes a file, and every node must read it.
"""

import os
import platform
import socket
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m2distill_policy.errors import UserError
from m2distill_training.execution.attempt import INPUT_WAIT_S, wait_for
from m2distill_training.runs.provenance import packages, result_versions, source_commit
from m2distill_training.runs.records import writing

Probe = Callable[[], None]  # raises UserError on a node that cannot do the work


@dataclass(frozen=True)
class NodeCheck:
    """What every node must satisfy."""

    folder: Path  # shared
    token: str  # name of the file in it
    expected: dict[str, Any] = field(default_factory=dict)
    probe: Probe | None = None
    wait_s: float = INPUT_WAIT_S  # for the file

    def problem(self) -> str:
        """Return why this machine cannot work, in one line; empty if it can. Called on the node."""
        here = socket.gethostname()
        try:
            wait_for([self.folder / self.token], self.wait_s)
        except UserError:
            return (
                f"node {here} does not see {self.folder}, which this command writes; give a folder that all machines "
                "share, under one path"
            )
        found = software()
        for name, value in self.expected.items():
            dirty = name == "source" and any(str(each).endswith("-dirty") for each in (value, found[name]))
            if found[name] != value and not dirty:  # a changed working copy has no version to compare
                return (
                    f"node {here} has {name} {found[name]}, this machine has {value}; install the same version "
                    "everywhere, because results depend on it"
                )
        try:
            if self.probe is not None:
                self.probe()
        except UserError as error:
            return f"node {here}: {error}"
        return ""


def make_check(folder: Path, probe: Probe | None = None) -> NodeCheck:
    """Write a file in the shared folder and return the check for it. Raises RunError if that is impossible."""
    folder = folder.absolute()
    token = f".shared-{uuid.uuid4().hex[:12]}"
    with writing(folder / token):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / token).write_text(f"{socket.gethostname()} {os.getpid()}\n")
    return NodeCheck(folder, token, software(), probe)


def software() -> dict[str, str | None]:
    """Return the versions that must be equal on all nodes."""
    return {
        "python": ".".join(map(str, sys.version_info[:2])),
        "machine": platform.machine(),
        "source": source_commit(),
        "m2distill": packages().get("m2distill"),
        **result_versions(),
    }
