"""A job, its resources and its outcome."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Resources:
    """What a job occupies on a machine. Several jobs share a GPU if each takes a part of it."""

    cpus: int = 1
    gpus: float = 0.0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(self.cpus + other.cpus, self.gpus + other.gpus)

    def within(self, limit: "Resources") -> bool:
        """Return True if `limit` suffices. Parts of a GPU may add up with an error in the last digit."""
        return self.cpus <= limit.cpus and self.gpus <= limit.gpus + 1e-6


@dataclass(frozen=True)
class Job:
    """A function of a module and its arguments, to be called once in some worker.

    The result may depend on nothing else, and a repetition after a loss must not change it. `inputs` must exist before
    the call and `outputs` after it, in a folder that all workers share.
    """

    name: str  # unique among the jobs of an executor
    work: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    resources: Resources = Resources()
    threads: int = 1  # of torch; sums depend on it, so it belongs to the job and not to the machine
    group: str = ""  # a worker prefers jobs of one group, which share what it keeps in memory
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """End of a job: a value, or the error after which it is not repeated."""

    job: Job
    value: Any = None
    error: Exception | None = None
    where: str = ""  # the worker
    seconds: float = 0.0  # of the last attempt


@dataclass(frozen=True)
class Reply:
    """What a worker reports of a job.

    `kind` is "result"; "rejected" for an error that a repetition would not change; "failed" for another error, "lost"
    for a worker that has ended, "node_lost" for one whose machine has, and "memory" for a GPU without enough memory.
    """

    kind: str
    value: Any
