"""Workers on this machine: processes that serve jobs through a pipe, and end with the process that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from m2distill_policy.errors import UserError
from m2distill_training.execution.attempt import THREAD_VARIABLES, attempt
from m2distill_training.execution.executor import Backend, Worker
from m2distill_training.execution.jobs import Job, Reply, Resources


class LocalBackend(Backend):
    """Processes of this machine."""

    def __init__(self, workers: int):
        """Offer room for jobs.

        Args:
            workers: number of jobs with one CPU each that run at the same time.
        """
        self._cpus = workers
        self._gpus: int | None = None
        self._live: list[LocalWorker] = []

    def capacity(self, gpus: bool) -> Resources:
        """Return what all jobs together may occupy; the GPUs, whose number takes torch, only if `gpus`."""
        if gpus and self._gpus is None:
            import torch

            self._gpus = torch.cuda.device_count()
        return Resources(self._cpus, self._gpus or 0)

    def start(self, resources: Resources) -> "LocalWorker":
        self._live = [worker for worker in self._live if worker.process.is_alive()]
        worker = LocalWorker(resources, self._free_gpu(resources.gpus) if resources.gpus else None)
        self._live.append(worker)
        return worker

    def wait(self, workers: Sequence[Worker], timeout_s: float | None) -> list[Worker]:
        pipes = {worker.pipe: worker for worker in workers if isinstance(worker, LocalWorker)}
        return [pipes[pipe] for pipe in wait(list(pipes), timeout_s)]  # type: ignore[index]

    def close(self) -> None:
        for worker in self._live:
            worker.end()

    def _free_gpu(self, share: float) -> int:
        """Return the GPU with the least room that suffices; -1 does not occur while the sum of shares does."""
        used = {gpu: sum(w.resources.gpus for w in self._live if w.gpu == gpu) for gpu in range(self._gpus or 0)}
        fitting = [gpu for gpu, sum_ in used.items() if sum_ + share <= 1 + 1e-6] or list(used)
        return max(fitting, key=lambda gpu: used[gpu])


class LocalWorker(Worker):
    """One process."""

    def __init__(self, resources: Resources, gpu: int | None):
        context = multiprocessing.get_context("spawn")  # a forked GL context is unusable
        self.resources, self.gpu = resources, gpu
        self.pipe, its_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(its_end,), daemon=True)
        visible = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": _visible(gpu)}
        with _variables(THREAD_VARIABLES | visible):
            self.process.start()
        its_end.close()  # so that the pipe breaks when the process ends

    @property
    def where(self) -> str:
        return f"process {self.process.pid}"

    def begin(self, job: Job) -> None:
        with suppress(OSError):  # it has died meanwhile, which `reply` reports
            self.pipe.send(job)

    def reply(self) -> Reply:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            reason = f"a worker process {how}, perhaps for lack of memory; repeat the command with fewer --workers"
            return Reply("lost", UserError(reason))

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # the parent has ended
        while True:
            pipe.send(attempt(pipe.recv()))


def _end_with_parent() -> None:
    """End this process, also in the middle of a job, when the one that started it has ended in whatever way."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _visible(gpu: int) -> str:
    """Return the name of this process's GPU number `gpu` for $CUDA_VISIBLE_DEVICES, which may be set already."""
    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return names[gpu] if names else str(gpu)


@contextmanager
def _variables(values: dict[str, str]) -> Any:
    """Set environment variables for the processes that start meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
