"""The backend that the options --workers and --cluster name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from m2distill_policy.errors import require_at_least
from m2distill_training.execution.executor import Executor
from m2distill_training.execution.local import LocalBackend
from m2distill_training.execution.nodes import Probe, make_check

WORKERS = 2  # on this machine, if their number is not given


@contextmanager
def open_executor(
    workers: int | None, cluster: str | None, shared: Path, probe: Probe | None = None
) -> Iterator[Executor]:
    """Yield an executor and end its workers.

    Args:
        workers: CPUs that jobs occupy at most; None: WORKERS on this machine, all of a cluster.
        cluster: None for processes on this machine, "auto" or HOST:PORT for Ray.
        shared: folder that all machines see under this path; the command's results are written there.
        probe: function of a module that raises UserError on a machine that cannot do the work.

    Raises:
        UserError: there is no such cluster, or a node of it does not pass the checks.
    """
    if workers is not None:
        require_at_least(1, workers=workers)
    if cluster is None:
        with Executor(LocalBackend(workers or WORKERS)) as executor:
            yield executor
        return
    from m2distill_training.execution.ray_cluster import RayBackend

    check = make_check(shared, probe)
    try:
        with Executor(RayBackend(cluster, check, workers)) as executor:
            yield executor
    finally:
        (check.folder / check.token).unlink(missing_ok=True)
