"""Learning steps that the page can start on this computer, as commands of m2distill. No ROS.

A browser names a step and at most one text: an instruction that the recorder stored, or a number. Paths and options are
composed here. One step runs at a time, at a low priority and with two cores left to the robot; it is interrupted like a
command by Ctrl-C, so that the same step continues later.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from m2distill_policy.errors import UserError
from m2distill_policy.ros.dashboard.episodes import EpisodeFolder
from m2distill_policy.utils.schema import without_schema

NICENESS = "15"
SHOWN_LINES, MAX_LINE = 6, 300
FREE_CORES = 2
END_LIMIT_S = 2.0
NAME = re.compile(r"[\w-]+")
JOBS = ("import", "look", "learn", "promote", "rollback_run")
RESTING = ("learn", "promote")  # steps that are not started while the policy moves the arm
DEMOS, REVIEW = "demos", "review"  # folders in that of the episodes, and in that of a set
# What a page of a set may do: its own script and images, in an origin of its own, so that it cannot send orders.
REVIEW_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class JobRunner:
    """Runner of the learning steps of one run. All methods but `scan` run in the server's loop.

    Args:
        run: Folder of the run that learns; empty: none, and no step can be started.
        episodes: Recorder's folder.
        is_moving: Function that returns whether the policy moves the arm.
    """

    def __init__(self, run: str, episodes: EpisodeFolder, is_moving: Callable[[], bool]):
        self._run = Path(run).absolute() if run else None
        self._episodes, self._is_moving = episodes, is_moving
        self._process: asyncio.subprocess.Process | None = None
        self._lines: deque[str] = deque(maxlen=SHOWN_LINES)
        self._job, self._begun_s, self._is_cancelled = "", 0.0, False
        self._known: dict[str, Any] = {"tasks": [], "deployed": "", "set": "", "pages": []}

    @property
    def section(self) -> dict[str, Any]:
        """What the page shows; called several times a second."""
        running = self._job if self._process is not None else ""
        seconds = int(time.monotonic() - self._begun_s) if running else 0
        last = {"running": running, "seconds": seconds, "lines": list(self._lines)}
        return {"run": str(self._run or ""), "problem": self._problem(), **self._known, **last}

    def _problem(self) -> str:
        """Return why no step can be started; empty if one can."""
        if self._run is None:
            return "No run was named."
        if self._episodes.folder is None:
            return "No folder of episodes was named."
        if importlib.util.find_spec("m2distill_training") is None:
            return "This computer has no m2distill_training; pip install 'm2distill[train,sim]'"
        return ""

    def scan(self) -> None:
        """Read what the run knows and which set was imported last. It may wait for the disk."""
        if self._run is None or self._episodes.folder is None:
            return
        tasks: list[str] = []
        data = self._run / "data.json"
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, UserError):
            tasks = [str(entry["instruction"]) for entry in without_schema(json.loads(data.read_text()), data)]
        deployed = ""
        with contextlib.suppress(OSError):
            deployed = os.readlink(self._run / "current").removesuffix("/checkpoint")
        file = self._newest_set()
        pages = sorted(path.name for path in (file.parent / REVIEW).glob("*.html")) if file else []
        name = file.relative_to(self._episodes.folder / DEMOS).as_posix() if file else ""
        self._known = {"tasks": tasks, "deployed": deployed, "set": name, "pages": pages}

    def _newest_set(self) -> Path | None:
        """Return the file that was imported last; its folder begins with the time."""
        assert self._episodes.folder is not None  # or no step is possible
        return max((self._episodes.folder / DEMOS).glob("*/*.hdf5"), default=None)

    def review(self, folder: str, name: str) -> Path:
        """Return the page of a set. Raises UserError if there is none."""
        root = self._episodes.folder
        if root is None or not NAME.fullmatch(folder) or not re.fullmatch(r"[\w.-]+\.html", name):
            raise UserError("no such page")
        path = root / DEMOS / folder / REVIEW / name
        if not path.is_file():
            raise UserError(f"no page {name}; look at the set first")
        return path

    async def start(self, job: str, text: str) -> str:
        """Carry out a step and return its last line. Raises UserError if it cannot be started, or fails."""
        if problem := self._problem():
            raise UserError(f"{problem} Start the dashboard with --run and --episodes")
        if self._process is not None or self._job:
            raise UserError(f"{self._job or 'another step'} is running; wait for its end, or cancel it")
        if job in RESTING and self._is_moving():
            raise UserError(f"the policy moves the arm; stop it before {job}, which occupies this computer")
        loop = asyncio.get_running_loop()
        self._job, self._begun_s, self._is_cancelled = job, time.monotonic(), False
        try:
            await loop.run_in_executor(None, self._episodes.scan)  # the last one may just have been kept
            arguments = self._arguments(job, text)
            self._lines.clear()
            status = await self._execute(arguments)
        finally:
            self._process, self._job = None, ""
            await loop.run_in_executor(None, self.scan)
        last = self._lines[-1] if self._lines else "done"
        results = [line for line in self._lines if " " in line and not line.startswith("next:")]
        if status == 0:
            return results[-1] if results else last
        if self._is_cancelled or status in (130, -signal.SIGINT):  # it may end otherwise while Python starts
            raise UserError(f"{job} was cancelled; the same step continues it")
        raise UserError(last.removeprefix("m2distill: error: "))

    def _arguments(self, job: str, text: str) -> list[str]:
        """Return the words of the command. Raises UserError."""
        run, root = str(self._run), self._episodes.folder
        assert root is not None  # or no step is possible
        if job == "import":
            bags = self._episodes.successes(text)
            if not bags:
                raise UserError(
                    f"no successful episode of {text!r} is kept; record some, or choose another instruction"
                )
            out = root / DEMOS / f"{time.strftime('%Y%m%d_%H%M%S')}_{_slug(text)}"
            return ["import", "bag", *map(str, bags), "--out", str(out)]
        if job == "promote":
            return ["promote", "--run", run, "--episodes", str(_number("episodes", text, 1, 950))]
        if job == "rollback_run":
            return ["rollback", "--run", run]
        file = self._newest_set()
        if file is None:
            raise UserError("nothing is imported yet; import the episodes first")
        if job == "look":
            return ["data", "show", str(file), "--out", str(file.parent / REVIEW)]
        arguments = ["learn", "--run", run, "--data", str(file), "--held-out", str(_number("held out", text, 0, 1000))]
        tasks = self._known["tasks"]
        # The folder's name begins with a time of 16 characters, see above.
        return [*arguments, *(["--again"] if tasks and _slug(tasks[-1]) == file.parent.name[16:] else [])]

    async def _execute(self, arguments: list[str]) -> int:
        threads = str(max(1, (os.cpu_count() or 1) - FREE_CORES))
        variables = {"OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1", "TERM": "dumb", "COLUMNS": "100"}
        self._process = process = await asyncio.create_subprocess_exec(
            *("nice", "-n", NICENESS, sys.executable, "-m", "m2distill_training", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **variables},
            start_new_session=True,
        )
        assert process.stdout is not None  # a pipe
        rest = ""
        while part := await process.stdout.read(4096):
            *lines, rest = (rest + part.decode(errors="replace")).replace("\r", "\n").split("\n")
            self._lines.extend(line[:MAX_LINE] for line in lines if line.strip())
            rest = rest[-MAX_LINE:]
        if rest.strip():
            self._lines.append(rest)
        return await process.wait()

    def cancel(self) -> str:
        """Interrupt the step that runs. Raises UserError if none does."""
        if self._process is None:
            raise UserError("no step is running")
        self._is_cancelled = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)
        return f"cancelling {self._job}"

    async def end(self) -> None:
        """Interrupt the step that runs, and kill it if it does not end."""
        process = self._process
        if process is None:
            return
        self.cancel()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), END_LIMIT_S)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _slug(instruction: str) -> str:
    """Return an instruction as a part of a file's name."""
    return re.sub(r"\W+", "_", instruction).strip("_")[:60]


def _number(name: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise UserError(f"{name} is {text!r}, expected a whole number from {low} to {high}")
    return int(text)
