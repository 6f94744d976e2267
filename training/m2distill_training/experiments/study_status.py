"""Status of a study: what is done, running and left, and when it will end. The running study writes it to a file."""

import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from m2distill_policy.errors import UserError
from m2distill_training.execution.executor import Executor
from m2distill_training.execution.graph import Activity
from m2distill_training.runs.records import BusyError, locked, read_json, write_json
from m2distill_training.utils.schemas import is_count, is_number, is_text, optional

LOCK = ".lock"
WRITE_S = 10.0  # between writes, if nothing ends
WINDOW_S = 600.0  # of the costs: several episodes or saved steps of each kind
SHOWN = 10  # names of each group
STATUS = {
    "written": is_number,  # time.time
    "total": is_count,  # of activities
    "done": is_count,
    "running": [{"name": is_text, "where": is_text}],
    "left": [is_text],
    "failed": [{"name": is_text, "error": is_text}],
    "seconds_left": optional(is_number),
    "costs": {},  # kind of work -> seconds of a worker per unit
}


class MovingCosts:
    """Seconds of a worker per unit of each kind of work, over the last WINDOW_S in which some of it was done.

    Args:
        costs: known from before, until others are measured.
    """

    def __init__(self, costs: Mapping[str, float]):
        self._costs = dict(costs)
        self._totals: dict[str, deque[tuple[float, float, float]]] = defaultdict(deque)  # time, seconds, units

    def after(self, now: float, seconds: Mapping[str, float], units: Mapping[str, float]) -> dict[str, float]:
        """Return the costs, given the totals of every kind at the time `now`."""
        for kind, done in units.items():
            totals = self._totals[kind]
            totals.append((now, seconds[kind], done))
            while len(totals) > 2 and totals[1][0] <= now - WINDOW_S:
                totals.popleft()
            _, seconds_before, done_before = totals[0]
            if done > done_before:
                self._costs[kind] = (seconds[kind] - seconds_before) / (done - done_before)
        return dict(self._costs)


class StatusFile:
    """Writer of status.json; also prints a line for each activity that ends."""

    def __init__(self, path: Path, executor: Executor, activities: Sequence[Activity]):
        self._path, self._executor, self._activities = path, executor, activities
        self._begun = {activity.name: activity.done for activity in activities}
        self._over = {activity.name for activity in activities if activity.is_over}
        self._costs: dict[str, float] = read_json(path, STATUS)["costs"] if path.is_file() else {}
        self._moving = MovingCosts(self._costs)
        self._moving.after(time.monotonic(), defaultdict(float), {activity.kind: 0.0 for activity in activities})
        self._written = 0.0

    def update(self, end: bool = False) -> None:
        """Write the file if something has ended, and every WRITE_S."""
        over = [each for each in self._activities if each.is_over and each.name not in self._over]
        self._over |= {each.name for each in over}
        if not over and not end and time.monotonic() < self._written + WRITE_S:
            return
        self._written = time.monotonic()
        status = self._status()
        write_json(self._path, status, STATUS)
        for each in over:
            if each.units or each.error:
                how = f"failed: {each.error}" if each.error else "not begun, for an earlier error"
                how = f"done in {_clock(each.seconds)}" if each.ended else how
                total, left = len(self._activities), _clock(status["seconds_left"])
                print(f"[{len(self._over)}/{total}] {each.name}: {how}; {left} left", flush=True)

    def _status(self) -> dict[str, Any]:
        running = self._executor.running()
        return {
            "written": time.time(),
            "total": len(self._activities),
            "done": sum(each.ended for each in self._activities),
            "running": [{"name": name, "where": where} for name, (where, _) in running.items()],
            "left": [each.name for each in self._activities if not each.is_over and each.name not in running],
            "failed": [{"name": x.name, "error": f"{x.error}"[-900:]} for x in self._activities if x.error],
            "seconds_left": self._seconds_left(running),
            "costs": self._costs,
        }

    def _seconds_left(self, running: dict[str, tuple[str, float]]) -> float | None:
        """Return the work that is left over the CPUs; None if some kind of it has not been measured."""
        seconds: defaultdict[str, float] = defaultdict(float)
        units: defaultdict[str, float] = defaultdict(float)
        progress = {each.name: each.progress() if each.name in running else each.done for each in self._activities}
        for each in self._activities:
            seconds[each.kind] += each.seconds + running.get(each.name, ("", 0.0))[1]
            units[each.kind] += progress[each.name] - self._begun[each.name]
        self._costs = self._moving.after(time.monotonic(), seconds, units)
        total = 0.0
        for each in self._activities:
            if each.is_over or not each.units:
                continue
            if each.kind not in self._costs:
                return None
            total += self._costs[each.kind] * (each.units - progress[each.name])
        return total / max(1, self._executor.capacity().cpus)


def describe_status(out: Path) -> str:
    """Return the status of the study in a folder as text. Raises UserError if there is none."""
    if not (out / "status.json").is_file():
        raise UserError(f"{out} holds no study that was started; name the --out of m2distill study")
    status = read_json(out / "status.json", STATUS)
    try:
        with locked(out / LOCK, "running"):
            is_running = False
    except BusyError:
        is_running = True
    left, total = len(status["left"]), status["total"]
    lines = [f"{out}: {status['done']} of {total} parts done, {len(status['failed'])} failed"]
    if is_running:
        age = time.time() - status["written"]
        lines.append(f"running, about {_clock(status['seconds_left'])} left; as of {age:.0f} s ago")
        lines += [f"  on {each['where']}: {each['name']}" for each in status["running"]]
    elif left:
        lines.append("not running; repeat its m2distill study command to continue")
    lines += [f"  failed: {each['name']}: {each['error'].strip().splitlines()[-1]}" for each in status["failed"]]
    lines += [f"  left: {name}" for name in status["left"][:SHOWN]]
    lines += [f"  ... and {left - SHOWN} more"] if left > SHOWN else []
    return "\n".join(lines)


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
