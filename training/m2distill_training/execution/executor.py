"""The queue of jobs, whatever machine their workers are on.

A worker serves one job after the other. If it is lost or fails, another repeats the job, ATTEMPTS times at most; a
machine that is lost does not count as an attempt of the jobs on it until NODE_LOSSES.
"""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from m2distill_policy.errors import UserError
from m2distill_training.execution.jobs import Job, Outcome, Reply, Resources

ATTEMPTS = 3  # per job
NODE_LOSSES = 10  # per job
POLL_S = 2.0  # between looks at the capacity, which grows and shrinks in a cluster


class Worker(ABC):
    """A process that serves jobs of some size."""

    resources: Resources

    @property
    @abstractmethod
    def where(self) -> str:
        """Return the machine and the process, for messages."""

    @abstractmethod
    def begin(self, job: Job) -> None:
        """Send a job."""

    @abstractmethod
    def reply(self) -> Reply:
        """Return the reply to the job, which `Backend.wait` has announced."""

    @abstractmethod
    def end(self) -> None:
        """Kill the process; a second call does nothing."""


class Backend(ABC):
    """Where workers are."""

    @abstractmethod
    def capacity(self, gpus: bool) -> Resources:
        """Return what all jobs together may occupy at present; with `gpus` the GPUs, too."""

    @abstractmethod
    def start(self, resources: Resources) -> Worker:
        """Start a worker for jobs of this size."""

    @abstractmethod
    def wait(self, workers: Sequence[Worker], timeout_s: float | None) -> list[Worker]:
        """Wait until one of the busy workers has a reply; return those that have one."""

    @abstractmethod
    def close(self) -> None:
        """End all workers."""


@dataclass
class _Busy:
    """A job at work."""

    job: Job
    worker: Worker
    began: float  # time.monotonic


class Executor:
    """Jobs on the workers of a backend; a context manager that ends the workers.

    Attributes:
        on_begin: called with a job and its worker's place when it begins.
        on_repeat: called with a job that is repeated, and the reason.
    """

    def __init__(self, backend: Backend):
        self.on_begin: Callable[[Job, str], None] = lambda job, where: None
        self.on_repeat: Callable[[Job, str], None] = lambda job, reason: None
        self._backend = backend
        self._waiting: dict[str, Job] = {}
        self._busy: dict[str, _Busy] = {}
        self._idle: list[tuple[Worker, str]] = []  # with the group of the last job
        self._failures: Counter[str] = Counter()
        self._node_losses: Counter[str] = Counter()

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, job: Job) -> None:
        """Add a job. Raises UserError for one that can never run here."""
        if job.name in self._waiting or job.name in self._busy:
            raise ValueError(f"a job {job.name!r} exists already")
        if job.resources.gpus and not self._backend.capacity(True).gpus:
            raise UserError(f"job {job.name} needs a GPU, and no machine here has one; use --device cpu")
        self._waiting[job.name] = job

    def submit_all(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.submit(job)

    def capacity(self) -> Resources:
        """Return what all jobs together may occupy at present."""
        return self._backend.capacity(True)

    def unfinished(self) -> int:
        """Return the number of jobs that wait or run."""
        return len(self._waiting) + len(self._busy)

    def running(self) -> dict[str, tuple[str, float]]:
        """Return the worker's place, and the seconds since the beginning, of every job at work."""
        now = time.monotonic()
        return {name: (busy.worker.where, now - busy.began) for name, busy in self._busy.items()}

    def completed(self, timeout_s: float | None = None) -> list[Outcome]:
        """Wait until jobs end and return their outcomes: none after `timeout_s`, or if no job is left."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._waiting or self._busy:
            self._dispatch()
            left = POLL_S if deadline is None else min(POLL_S, max(0.0, deadline - time.monotonic()))
            if not self._busy:  # no machine of the cluster has room
                time.sleep(left)
            outcomes = [outcome for busy in self._ready(left) if (outcome := self._take(busy))]
            if outcomes or (deadline is not None and time.monotonic() >= deadline):
                return outcomes
        return []

    def cancel(self, name: str) -> bool:
        """Drop a waiting job, or end a running one with its worker; return False if there is no such job."""
        if self._waiting.pop(name, None):
            return True
        if busy := self._busy.pop(name, None):
            busy.worker.end()
            return True
        return False

    def cancel_waiting(self) -> None:
        """Drop all jobs that have not begun."""
        self._waiting.clear()

    def close(self) -> None:
        """End all workers; unfinished jobs are dropped."""
        self._waiting.clear()
        for worker in [*(busy.worker for busy in self._busy.values()), *(worker for worker, _ in self._idle)]:
            worker.end()
        self._busy.clear()
        self._idle.clear()
        self._backend.close()

    def _ready(self, timeout_s: float) -> list[_Busy]:
        busy = {id(each.worker): each for each in self._busy.values()}
        if not busy:
            return []
        return [busy[id(worker)] for worker in self._backend.wait([b.worker for b in busy.values()], timeout_s)]

    def _dispatch(self) -> None:
        """Give jobs to idle workers, and start workers for others while there is room."""
        for worker, group in list(self._idle):
            if job := self._next(worker.resources, group):
                self._idle.remove((worker, group))
                self._begin(job, worker)
        while resources := self._startable():
            if job := self._next(resources, ""):
                self._begin(job, self._backend.start(resources))

    def _next(self, resources: Resources, group: str) -> Job | None:
        """Return the job for a worker of this size whose last job was of `group`."""
        fitting = [job for job in self._waiting.values() if job.resources == resources]
        elsewhere = {busy.job.group for busy in self._busy.values()}
        same = (job for job in fitting if job.group and job.group == group)
        fresh = (job for job in fitting if job.group not in elsewhere)
        return next(same, None) or next(fresh, None) or next(iter(fitting), None)

    def _startable(self) -> Resources | None:
        """Return the size of a waiting job for which there is room, perhaps in place of idle workers."""
        sizes = dict.fromkeys(job.resources for job in self._waiting.values())
        if not sizes:
            return None
        capacity = self._backend.capacity(any(size.gpus for size in sizes))
        occupied = sum((busy.job.resources for busy in self._busy.values()), Resources(0))
        for size in sizes:
            if (occupied + size).within(capacity) or (not self._busy and capacity.cpus):
                while self._idle and not (self._held() + size).within(capacity):
                    self._idle.pop(0)[0].end()
                return size
        return None

    def _held(self) -> Resources:
        workers = [*(busy.worker for busy in self._busy.values()), *(worker for worker, _ in self._idle)]
        return sum((worker.resources for worker in workers), Resources(0))

    def _begin(self, job: Job, worker: Worker) -> None:
        del self._waiting[job.name]
        self._busy[job.name] = _Busy(job, worker, time.monotonic())
        worker.begin(job)
        self.on_begin(job, worker.where)

    def _take(self, busy: _Busy) -> Outcome | None:
        """Return the outcome of a job whose worker has replied; None if it is repeated."""
        reply, job, where = busy.worker.reply(), busy.job, busy.worker.where
        del self._busy[job.name]
        seconds = time.monotonic() - busy.began
        if reply.kind == "result":
            self._idle.append((busy.worker, job.group))
            return Outcome(job, reply.value, None, where, seconds)
        busy.worker.end()
        if reply.kind == "rejected" or not self._is_repeated(job, reply):
            return Outcome(job, None, reply.value, where, seconds)
        reason = str(reply.value).strip().splitlines()[-1]
        if reply.kind == "memory":
            job = replace(job, resources=replace(job.resources, gpus=min(1.0, 2 * job.resources.gpus)))
            reason = f"the GPU's memory did not suffice; fewer jobs run, it now takes {job.resources.gpus:g} of a GPU"
        self._waiting = {job.name: job, **self._waiting}
        self.on_repeat(job, reason)
        return None

    def _is_repeated(self, job: Job, reply: Reply) -> bool:
        if reply.kind == "node_lost":
            self._node_losses[job.name] += 1
            return self._node_losses[job.name] < NODE_LOSSES
        if reply.kind == "memory":
            return 0 < job.resources.gpus < 1
        self._failures[job.name] += 1
        return self._failures[job.name] < ATTEMPTS


def run_jobs(
    executor: Executor, jobs: Sequence[Job], on_result: Callable[[Outcome], None] = lambda _: None
) -> list[Any]:
    """Return the values of all jobs in their order.

    Args:
        executor: where they run.
        jobs: the jobs.
        on_result: called with each outcome as it comes.

    Raises:
        Exception: the error of a job that was not repeated, or failed repeatedly.
    """
    values: dict[str, Any] = {}
    executor.submit_all(jobs)
    while len(values) < len(jobs):
        for outcome in executor.completed():
            if outcome.error is not None:
                raise outcome.error from None
            values[outcome.job.name] = outcome.value
            on_result(outcome)
    return [values[job.name] for job in jobs]
