"""Provenance of a run: versions, machine, threads and source.

Results are bit-identical only if these agree.
"""

import functools
import os
import platform
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path

from m2distill_training.utils.schemas import is_count, optional

ENVIRONMENT = {
    "python": str,
    "cpu": str,
    "cores": is_count,
    "threads": is_count,
    "gpus": [str],
    "source": optional(str),
    "packages": {},
}  # the entries that are read again

# Libraries that a result may depend on.
RESULT_PACKAGES = ("torch", "numpy", "mujoco", "robosuite", "hf-libero", "opencv-python")


def environment() -> dict:
    """Return a JSON-ready description of this process and its machine."""
    import torch  # the versions alone do not need it

    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "source": source_commit(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": packages(),
    }


def packages() -> dict[str, str]:
    """Return {name: version} of all packages that were installed at the first call."""
    return dict(_packages())


def result_versions() -> dict[str, str | None]:
    """Return the versions of the libraries that a result may depend on; None if not installed."""
    installed = packages()
    return {name: installed.get(name) for name in RESULT_PACKAGES}


@functools.cache
def _packages() -> tuple[tuple[str, str], ...]:
    return tuple(sorted({d.metadata["Name"]: d.version for d in distributions()}.items()))


def source_commit() -> str | None:
    """Return the git commit of this code, with "-dirty" if tracked files differ; None outside a repository."""
    git = shutil.which("git")
    here = Path(__file__).resolve()
    if git is None:
        return None

    def ask(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [git, "-C", here.parent, *arguments], capture_output=True, text=True, timeout=30, check=False
        )

    if ask("ls-files", "--error-unmatch", here.name).returncode != 0:  # installed inside another repository
        return None
    return ask("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").stdout.strip() or None


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
