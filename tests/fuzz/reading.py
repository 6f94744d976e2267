"""A process that reads cases one after the other. A forbidden operation or the death of the process fails the test.

Limits: 1 GiB of memory more than at its start, and 5 s of CPU time per case. The process may start only the named
programs, open no connection, and write only below its folder.
"""

import multiprocessing
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from damage import Files

from m2distill_policy.errors import UserError

MEMORY = 1 << 30
CPU_LIMIT_S, TIMEOUT_S = 20, 60  # CPU time, four times what a slow machine takes; wall time, for a process that waits
CASES = 300  # per process: memory that one case leaks must not count for many others
OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "socket.connect")


@dataclass(frozen=True)
class Link:
    """A symbolic link in a case."""

    target: str


class Reader:
    """Context manager that calls `read(case folder)` in a process; `folder` is exclusive to this reader."""

    def __init__(self, read: Callable[[Path], object], folder: Path, programs: tuple[str, ...] = ()):
        self._read, self.folder, self._programs = read, folder, programs
        self._process = None
        self._cases = 0

    def judge(self, files: Files) -> str:
        """Return the message with which the reader rejected the case, "" if it accepted it.

        Raises:
            AssertionError: the reader did anything else.
        """
        if self._process is None:
            self._start()
        self._pipe.send(files)
        try:
            outcome = self._pipe.recv() if self._pipe.poll(TIMEOUT_S) else f"no result within {TIMEOUT_S} s"
        except (EOFError, ConnectionResetError):
            self._process.join()
            outcome = _death(self._process.exitcode)
        self._cases += 1
        if outcome is None or outcome.startswith("rejected: "):
            if self._cases == CASES:
                self._stop()
            return (outcome or "").removeprefix("rejected: ")
        self._stop()
        raise AssertionError(outcome)

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *exception) -> None:
        self._stop()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")  # modules are imported already
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._read, self.folder, theirs, self._programs))
        self._process.start()
        theirs.close()
        self._cases = 0

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None


def _death(status: int) -> str:
    if status == -signal.SIGPROF:
        return f"more than {CPU_LIMIT_S} s of CPU time"
    return f"died by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _serve(read: Callable[[Path], object], folder: Path, pipe, programs: tuple[str, ...]) -> None:
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.settrace(None)  # a trace of coverage slows the reader, and ends with it unsaved
    os.fsync = lambda descriptor: None  # slow on a busy disk, and these files need not survive a crash
    done = _watch(folder, programs)
    case = folder / "case"
    while True:
        try:
            files = pipe.recv()
        except EOFError:
            return
        shutil.rmtree(case, ignore_errors=True)
        _write(case, files)
        done.clear()
        signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)
        try:
            read(case)
            outcome = None
        except UserError as error:
            outcome = f"rejected: {error}"
        except BaseException:
            outcome = traceback.format_exc()
        signal.setitimer(signal.ITIMER_PROF, 0)
        if done:
            outcome = f"forbidden operations: {done}\n{outcome}"
        pipe.send(outcome)


def _watch(folder: Path, programs: tuple[str, ...]) -> list[tuple]:
    """Return a list to which forbidden operations of this process are added from now on."""
    done: list[tuple] = []

    def hook(event: str, arguments: tuple) -> None:
        if event in STARTS:
            allowed = Path(str(arguments[0])).name.startswith(programs) if programs else False
        elif event == "open" and isinstance(arguments[0], str) and arguments[2] & OPEN_TO_WRITE:
            allowed = Path(os.path.abspath(arguments[0])).is_relative_to(folder) or arguments[0] == os.devnull
        else:
            return
        if not allowed:
            done.append((event, arguments))

    sys.addaudithook(hook)
    return done


def _write(case: Path, files: Files) -> None:
    case.mkdir()
    for name, content in files.items():
        path = case / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.target)
        else:
            path.write_bytes(content)
