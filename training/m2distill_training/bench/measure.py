"""Alternating timing of two implementations, and the output of benchmarks.

The two alternate (A B A B ...) because the speed of a machine drifts with its temperature and load. Both then meet the
same drift, and their ratio remains valid even if the two times are not.
"""

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from m2distill_training.runs.provenance import environment


@dataclass(frozen=True)
class Times:
    """Seconds of every repeat, in order."""

    ours_s: list[float]
    plain_s: list[float]

    @property
    def ours(self) -> float:
        return statistics.median(self.ours_s)

    @property
    def plain(self) -> float:
        return statistics.median(self.plain_s)

    def in_ms(self) -> dict:
        return {
            "ours_ms": round(1e3 * self.ours, 1),
            "plain_ms": round(1e3 * self.plain, 1),
            "ours_each_ms": [round(1e3 * s, 1) for s in self.ours_s],
            "plain_each_ms": [round(1e3 * s, 1) for s in self.plain_s],
        }


class InOwnProcess:
    """Callable that `make(*arguments)` returns, in a separate process.

    Settings of the trainer's whole process, such as those of the C allocator, do not affect it. Both must be functions
    of a module.
    """

    def __init__(self, make: Callable[..., Callable[[], object]], *arguments):
        self._pool = multiprocessing.get_context("spawn").Pool(1, _prepare, (make, arguments))

    def __call__(self) -> None:
        self._pool.apply(_take_turn)

    def __enter__(self) -> "InOwnProcess":
        return self

    def __exit__(self, *exception) -> None:
        self._pool.terminate()


_turns: list[Callable[[], object]] = []  # in the other process: its one callable


def _prepare(make: Callable[..., Callable[[], object]], arguments: tuple) -> None:
    _turns.append(make(*arguments))


def _take_turn() -> None:
    _turns[0]()


def alternate(ours: Callable[[], object], plain: Callable[[], object], repeats: int, label: str) -> Times:
    """Call each of the two once to warm up, then both alternately, `repeats` times."""
    times = Times([], [])
    for i in range(repeats + 1):
        for kept, call in ((times.ours_s, ours), (times.plain_s, plain)):
            begun = time.perf_counter()
            call()
            if i > 0:
                kept.append(time.perf_counter() - begun)
        progress(
            f"{label}: warmed up"
            if i == 0
            else f"{label}: {i}/{repeats}, {times.ours_s[-1]:.3f} s against {times.plain_s[-1]:.3f} s"
        )
    return times


def judged(ratio: float, sign: str, bar: float) -> dict:
    """Return a ratio, its limit and if it holds; `sign` is >= or <=."""
    return {"ratio": round(ratio, 2), **against(ratio, sign, bar)}


def against(value: float, sign: str, bar: float) -> dict:
    return {"bar": f"{sign} {bar}", "holds": value >= bar if sign == ">=" else value <= bar}


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def machine() -> dict:
    """Return what the numbers depend on besides the code, and the version of the code."""
    now = environment()
    return {name: now[name] for name in ("threads", "cores", "cpu", "source", "started")} | {"torch": torch.__version__}


def show(rows: list[dict], columns: tuple[str, ...], as_json: bool) -> None:
    """Print the rows: every field as JSON, or the columns as a table."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    cells = [columns, *([str(row.get(name, "")) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
