"""Pool of local worker processes that may die.

A new process repeats the job of one that was killed or failed. A job that fails ATTEMPTS times ends the whole call with
its error.
"""

import multiprocessing
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from m2distill_policy.errors import RendererError, UserError

Job = TypeVar("Job")
Result = TypeVar("Result")
ATTEMPTS = 3  # per job


def run_in_workers(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    *,
    on_result: Callable[[Result], None] = lambda result: None,
    on_repeat: Callable[[Job, str], None] = lambda job, reason: None,
) -> list[Result]:
    """Return `work(job)` of every job, in the order of `jobs`.

    Args:
        work: function of a module.
        jobs: its arguments.
        workers: largest number of processes.
        on_result: called with each result.
        on_repeat: called with a job that is repeated, and the reason.

    Raises:
        UserError: `work` raised it; it is not repeated. A RendererError is repeated like a crash.
    """
    results: dict[int, Result] = {}
    failures: Counter[int] = Counter()
    waiting = deque(range(len(jobs)))
    pool: list[_Worker] = []
    try:
        while len(results) < len(jobs):
            while waiting and len(pool) < workers:
                pool.append(_Worker(work))
            for worker in pool:
                if worker.doing is None and waiting:
                    i = waiting.popleft()
                    worker.begin(i, jobs[i])
            busy = [(worker, worker.doing) for worker in pool if worker.doing is not None]
            ready = wait([worker.pipe for worker, _ in busy])
            for worker, i in ((worker, i) for worker, i in busy if worker.pipe in ready):
                try:
                    results[i] = worker.result()
                except _Failed as failed:
                    pool.remove(worker)
                    failures[i] += 1
                    if failures[i] == ATTEMPTS:
                        raise failed.reason from None
                    waiting.appendleft(i)
                    on_repeat(jobs[i], str(failed.reason).strip().splitlines()[-1])
                else:
                    on_result(results[i])
    finally:
        for worker in pool:
            worker.end()
    return [results[i] for i in range(len(jobs))]


class _Failed(Exception):
    """A process has ended without a result for its job; a repetition may succeed."""

    def __init__(self, reason: Exception):
        super().__init__(str(reason))
        self.reason = reason


class _Worker:
    """One process and the job that it executes."""

    def __init__(self, work: Callable):
        context = multiprocessing.get_context("spawn")  # a forked GL context is unusable
        self.doing: int | None = None
        self.pipe, its_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, its_end), daemon=True)
        self.process.start()
        its_end.close()  # so that the pipe breaks when the process ends

    def begin(self, i: int, job: object) -> None:
        self.doing = i
        with suppress(OSError):  # it has died meanwhile, which `result` reports
            self.pipe.send(job)

    def result(self) -> Any:
        """Wait for the result. Raises UserError, or _Failed if the process has ended."""
        self.doing = None
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            kind, value = (
                "failed",
                UserError(
                    f"a worker process {how}, perhaps for lack of memory; repeat the command with fewer --workers"
                ),
            )
        if kind == "result":
            return value
        self.end()
        raise value if kind == "rejected" else _Failed(value)

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(work: Callable, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    with suppress(EOFError, OSError):  # the parent has ended
        while True:
            pipe.send(_attempt(work, pipe.recv()))


def _attempt(work: Callable, job: object) -> tuple[str, object]:
    try:
        return "result", work(job)
    except RendererError as error:
        return "failed", error
    except UserError as error:
        return "rejected", error
    except Exception:  # a defect, or a library error after the loss of a device
        return "failed", RuntimeError(traceback.format_exc())
