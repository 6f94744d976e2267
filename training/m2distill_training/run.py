"""A run folder: what a training run writes, and the rules for going on with one.

    config.json          the TrainConfig, text encoder resolved
    data.json            the datasets in task order, with their content keys
    versions.json        of Python and the packages that decide the numbers
    metrics.jsonl        one line per logged gradient step
    steps/<k>/checkpoint the policy after task step k
    steps/<k>/replay.json  demos kept for step k
    steps/<k>/state.pt   of the step in progress: weights, average, optimiser, gradient step
    lock                 held while a process trains here

Every file is written under a temporary name, flushed and renamed.
"""

import fcntl
import io
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch

from m2distill_policy.errors import UserError
from m2distill_training.config import TrainConfig, differences

PACKAGES = ("torch", "numpy", "transformers")


class RunError(UserError):
    """A run folder cannot be used as asked, or training cannot go on."""


def write_atomic(path: Path, content: bytes) -> None:
    """All of `content` at `path`, or what was there before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


class RunFolder:
    """Made by `open_run`, which holds the lock."""

    def __init__(self, path: Path):
        self.path = path

    def checkpoint(self, k: int) -> Path:
        return self.path / "steps" / str(k) / "checkpoint"

    def state(self, k: int) -> Path:
        return self.path / "steps" / str(k) / "state.pt"

    def write_json(self, name: str, value: object) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())

    def save_state(self, k: int, state: dict) -> None:
        self.state(k).parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.state(k), buffer.getvalue())

    def load_state(self, k: int) -> dict | None:
        """The saved state of step k, or None when it has not begun."""
        if not self.state(k).is_file():
            return None
        return torch.load(self.state(k), map_location="cpu", weights_only=True)

    def log(self, line: dict) -> None:
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def metrics(self) -> list[dict]:
        """All logged lines; a last line cut short by a crash is left out."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def forget_metrics_after(self, k: int, step: int) -> None:
        """Drop the lines that a resumed run is about to write again."""
        kept = [line for line in self.metrics() if (line["task_step"], line["step"]) <= (k, step)]
        write_atomic(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept).encode())


@contextmanager
def open_run(path: Path, config: TrainConfig, data: list[dict], resume: bool) -> Iterator[RunFolder]:
    """A new run folder, or with `resume` the one that is there, locked. Raises RunError when that would overwrite a
    run, when config or data differ from what the run began with, or when another process trains in it."""
    begun = (path / "config.json").is_file()
    if begun and not resume:
        raise RunError(f"{path} already holds a run; add --resume to go on with it, or choose another --out")
    if resume and not begun:
        raise RunError(f"{path} holds no run to resume; leave --resume out to begin one")
    path.mkdir(parents=True, exist_ok=True)
    with (path / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system releases it however the process ends
        except BlockingIOError:
            raise RunError(f"{path} is being trained by another process; wait for it or choose another --out") from None
        run = RunFolder(path)
        if begun:
            _check_unchanged(path, config, data)
        else:
            run.write_json("data.json", data)
            run.write_json("versions.json", _versions())
            write_atomic(path / "config.json", config.to_json().encode())  # last: from here on the run counts as begun
        yield run


def _check_unchanged(path: Path, config: TrainConfig, data: list[dict]) -> None:
    changed = differences(TrainConfig.from_json((path / "config.json").read_text()), config)
    if changed:
        raise RunError(f"{path} cannot be resumed with another configuration: {'; '.join(changed)}; "
                       "repeat the original settings or choose another --out")
    before = json.loads((path / "data.json").read_text())
    if [d["key"] for d in before] != [d["key"] for d in data]:
        raise RunError(f"{path} cannot be resumed with other data: it began with "
                       f"{[d['path'] for d in before]} as they were then, got {[d['path'] for d in data]}")


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
