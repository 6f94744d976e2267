"""A process that reads cases one after the other. What it may not do is a finding, and so is its death.

Memory: 1 GiB more than it had when it began. Time: 5 s of the processor for a case. It may start no program but those
that are named, connect to nobody, and write nowhere but below its folder.
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
PROCESSOR_S, PATIENCE_S = 5, 60  # of the processor; by the clock, for one that waits
CASES = 300  # after which a fresh process is taken: what one leaves must not count for the next
OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "socket.connect")


@dataclass(frozen=True)
class Link:
    """A symbolic link in a case."""

    target: str


class Reader:
    """`read(folder)` reads a case. A context manager; `folder` is this reader's own."""

    def __init__(self, read: Callable[[Path], object], folder: Path, programs: tuple[str, ...] = ()):
        self._read, self.folder, self._programs = read, folder, programs
        self._process = None
        self._cases = 0

    def judge(self, files: Files) -> str:
        """What the reader said of the case: "" when it took it. AssertionError for anything that it should not do."""
        if self._process is None:
            self._start()
        self._pipe.send(files)
        try:
            said = self._pipe.recv() if self._pipe.poll(PATIENCE_S) else f"nothing within {PATIENCE_S} s"
        except (EOFError, ConnectionResetError):
            self._process.join()
            said = _death(self._process.exitcode)
        self._cases += 1
        if said is None or said.startswith("refused: "):
            if self._cases == CASES:
                self._stop()
            return (said or "").removeprefix("refused: ")
        self._stop()
        raise AssertionError(said)

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *exception) -> None:
        self._stop()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")  # what the reader imports is there already
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
        return f"more than {PROCESSOR_S} s of the processor"
    return f"died by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _serve(read: Callable[[Path], object], folder: Path, pipe, programs: tuple[str, ...]) -> None:
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.fsync = lambda descriptor: None  # nothing here has to outlive the machine, and a busy disk takes its time
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
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_S)
        try:
            read(case)
            said = None
        except UserError as error:
            said = f"refused: {error}"
        except BaseException:
            said = traceback.format_exc()
        signal.setitimer(signal.ITIMER_PROF, 0)
        if done:
            said = f"it did: {done}\n{said}"
        pipe.send(said)


def _watch(folder: Path, programs: tuple[str, ...]) -> list[tuple]:
    """What this process does from now on that no reader may do."""
    done: list[tuple] = []

    def hook(event: str, arguments: tuple) -> None:
        if event in STARTS:
            ours = Path(str(arguments[0])).name.startswith(programs) if programs else False
        elif event == "open" and isinstance(arguments[0], str) and arguments[2] & OPEN_TO_WRITE:
            ours = Path(os.path.abspath(arguments[0])).is_relative_to(folder) or arguments[0] == os.devnull
        else:
            return
        if not ours:
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
