"""A run folder: what a training run writes, and the rules for going on with one.

    config.json          the TrainConfig, seed included, text encoder resolved
    data.json            the datasets in task order, with their content keys
    environment.json     versions, machine, threads and source: one entry for each start that had something to learn
    metrics.jsonl        one line per logged gradient step
    tensorboard/stage_<n>  the same as events
    stages/<n>/checkpoint  the policy after stage n, from 1; its metrics.json names its parent and its datasets
    stages/<n>/replay.json  demos replayed in stage n
    memory/<task>/         demos of every task, for further steps (data/kept.py)
    stages/<n>/state.pt    of the stage in progress: weights, average, optimiser, gradient step
    episodes.jsonl       one line per episode of m2distill evaluate
    evaluation.json      success after every stage, success matrix, metrics
    lock                 held while a process trains here

Every file is written under a temporary name, flushed and renamed, except the .jsonl and the events: they grow by
lines, and a last line cut short is dropped on resume.
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.utils.files import publish
from m2distill_training.config import SCHEMA, NewerSchema, TrainConfig, differences
from m2distill_training.runs.provenance import ENVIRONMENT, environment
from m2distill_training.runs.tensorboard import ScalarEvents
from m2distill_training.utils.schemas import fits, is_anything, is_count, is_number, is_shallow, is_text, non_empty

DATA = non_empty({"instruction": is_text, "key": str, "path": str, "demos": is_count})  # data.json
CONFIG = {"schema": is_count, "strategy": is_text, "seed": is_count}  # config.json, as far as reports read it
ENVIRONMENTS = [ENVIRONMENT]  # environment.json
RESTORE = "restore it from a copy"


def _LOGGED(line: Any) -> bool:
    """Of metrics.jsonl. A loss may be of any size."""
    return fits(line, {"stage": is_count, "step": is_count}) and all(
        is_text(name) and (type(value) is float or is_number(value)) for name, value in line.items()
    )


class RunError(UserError):
    """A run folder cannot be used as asked, or training cannot go on."""


def write_atomic(path: Path, content: bytes) -> None:
    """All of `content` at `path`, its folder made where needed; or RunError, and what was there before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            publish(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def read_json(path: Path, form: object = is_anything, mend: str = RESTORE) -> Any:
    """What is there, of a form as in forms.py. Raises RunError for a file that is missing or damaged, with `mend`, what
    to do about it."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read ({error}); {mend}") from None
    if isinstance(found, dict) and type(schema := found.get("schema")) is int and schema > SCHEMA:
        raise RunError(f"{path}: {NewerSchema(schema)}")
    if not is_shallow(found) or not fits(found, form):
        raise RunError(f"{path} is damaged or of another version; {mend}")
    return found


def begin_folder(out: Path, kind: str, asked: dict) -> None:
    """A new folder for what was `asked` (JSON values by name), kept in `<kind>.json`, or one where the same has begun.
    Raises RunError for a folder of anything else."""
    settings = out / f"{kind}.json"
    if not settings.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise RunError(f"{out} is not empty and holds no {kind}; choose another --out")
        write_atomic(settings, (json.dumps({"schema": SCHEMA, **asked}, indent=2) + "\n").encode())
    begun = read_json(settings, {})
    if other := [
        f"{name} {begun.get(name)} (asked: {value})" for name, value in asked.items() if begun.get(name) != value
    ]:
        raise RunError(f"{out} holds a {kind} of other settings: {', '.join(other)}; choose another --out")


def append_line(path: Path, line: dict) -> None:
    with _writing(path), path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def read_lines(path: Path, form: object = is_anything, mend: str = RESTORE) -> list[dict]:
    """The lines of a .jsonl, each an object of that form, none without a file; a last line cut short by a crash is left
    out. Raises RunError, as `read_json` does."""
    if not path.is_file():
        return []
    try:
        lines = path.read_text().split("\n")[:-1]
        found = [json.loads(line) for line in lines]
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}); {mend}") from None
    for number, line in enumerate(found, 1):
        if not is_shallow(line) or not fits(line, {}) or not fits(line, form):
            raise RunError(f"{path} is damaged in line {number}; {mend}")
    return found


def write_lines(path: Path, lines: Iterable[dict]) -> None:
    write_atomic(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """A full disk and its like become one line for the user."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror}); what was saved before is untouched. Mend that "
            "and repeat the command"
        ) from None


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file `path`; RunError with the reason `busy` when another process does."""
    with _writing(path):
        lock = path.open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system releases it however the process ends
        except BlockingIOError:
            raise RunError(busy) from None
        yield


class RunFolder:
    """Made by `open_run`, which holds the lock; without it, for reading."""

    def __init__(self, path: Path):
        self.path = path
        self._events: ScalarEvents | None = None
        self._environment_is_recorded = False

    def data(self) -> list[dict]:
        """The datasets in the order of learning. Raises RunError."""
        return read_json(self.path / "data.json", DATA)

    def folder(self, stage: int) -> Path:
        """The folder of a stage. Stages count from 1."""
        return self.path / "stages" / str(stage)

    def checkpoint(self, stage: int) -> Path:
        return self.folder(stage) / "checkpoint"

    def curve(self, stage: int) -> list[Path]:
        """Checkpoints saved during a stage, at equal distances from its first to its last gradient step; empty if the
        run keeps none."""
        return self.curve_beside(self.checkpoint(stage))

    @staticmethod
    def curve_beside(checkpoint: Path) -> list[Path]:
        """The curve of the stage that ended in a checkpoint."""
        folders = checkpoint.with_name("curve").glob("*")
        return sorted((path for path in folders if path.name.isdigit()), key=lambda path: int(path.name))

    def memory(self, task: int, name: str) -> Path:
        """Of the task in place `task` of data.json: "replay" or "held_out"."""
        return self.path / "memory" / str(task) / name

    def forget_memory(self, task: int) -> None:
        folder = self.path / "memory" / str(task)
        with _writing(folder):
            if folder.is_dir():
                shutil.rmtree(folder)

    def state(self, stage: int) -> Path:
        return self.folder(stage) / "state.pt"

    def lineage(self, stage: int, instructions: list[str]) -> dict:
        """What the checkpoint of a stage comes from, JSON-ready: the id of the one before it, null for the first, and
        the content key of every dataset learned so far."""
        keys = {d["instruction"]: d["key"] for d in self.data()}
        return {
            "parent": load_checkpoint(self.checkpoint(stage - 1)).id if stage > 1 else None,
            "data": {text: keys[text] for text in instructions},
        }

    def write_json(self, name: str, value: object) -> None:
        write_atomic(self.path / name, (json.dumps(value, indent=2) + "\n").encode())

    def record_environment(self, processes: int) -> None:
        """So many processes learn here together, from now on. Once in the life of this object; raises RunError."""
        if not self._environment_is_recorded:
            entries = read_json(self.path / "environment.json", ENVIRONMENTS)
            self.write_json("environment.json", [*entries, environment() | {"processes": processes}])
            self._environment_is_recorded = True

    def save_state(self, stage: int, state: dict) -> None:
        """A line with the sha256 of all that follows, then torch's format."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        write_atomic(self.state(stage), hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    def load_state(self, stage: int) -> dict | None:
        """The saved state of a stage on the CPU, or None when it has not begun. Raises RunError for a damaged one."""
        if not self.state(stage).is_file():
            return None
        digest, _, content = self.state(stage).read_bytes().partition(b"\n")
        if digest != hashlib.sha256(content).hexdigest().encode():
            raise RunError(
                f"{self.state(stage)} is damaged; restore it from a copy, or remove it to repeat stage {stage} "
                "from its beginning. Earlier checkpoints are untouched"
            )
        try:
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception:  # a right sum over bytes that no run has written: they fail in whatever way
            raise RunError(f"{self.state(stage)} is no saved state of this version; restore it from a copy") from None

    def save_checkpoint(self, path: Path, checkpoint: Checkpoint) -> None:
        save_checkpoint(path, checkpoint)

    def metrics(self) -> list[dict]:
        return read_lines(self.path / "metrics.jsonl", _LOGGED)

    def forget_metrics_after(self, stage: int, step: int) -> None:
        """Drop the lines and events that a stage continued after gradient step `step` writes again."""
        kept = [line for line in self.metrics() if (line["stage"], line["step"]) <= (stage, step)]
        write_lines(self.path / "metrics.jsonl", kept)
        self.close()
        with _writing(self.path / "tensorboard"):
            self._events = ScalarEvents(self.path / "tensorboard" / f"stage_{stage}")
        for line in kept:
            if line["stage"] == stage:
                self._write_events(line)

    def log(self, line: dict) -> None:
        """One line of "stage", "step" and named numbers; `forget_metrics_after` has begun that stage."""
        append_line(self.path / "metrics.jsonl", line)
        self._write_events(line)

    def _write_events(self, line: dict) -> None:
        assert self._events is not None  # forget_metrics_after came first
        values = {name: x for name, x in line.items() if name not in ("stage", "step")}
        with _writing(self.path / "tensorboard"):
            self._events.write(line["step"], values)

    def close(self) -> None:
        if self._events is not None:
            with suppress(OSError):  # every line has been flushed, and one that could not be has been reported
                self._events.close()
            self._events = None


class ReadOnlyRun(RunFolder):
    """What another process writes: to be read."""

    def _leave_to_the_other(self, *args: Any, **kwargs: Any) -> None:
        pass

    write_json = record_environment = save_state = save_checkpoint = forget_metrics_after = log = _leave_to_the_other


def follow_run(path: Path) -> RunFolder:
    """The run folder that another process has opened and writes; here nothing is written."""
    return ReadOnlyRun(path)


def read_run(path: Path) -> tuple[TrainConfig, list[dict]]:
    """The configuration and the datasets of a run. Raises RunError."""
    if not (path / "config.json").is_file():
        raise RunError(f"{path} is no run folder; give the --out of m2distill train")
    return _read_config(path), RunFolder(path).data()


@contextmanager
def open_run(path: Path, config: TrainConfig, data: list[dict], resume: bool) -> Iterator[RunFolder]:
    """A new run folder, or with `resume` the one that is there, locked. Raises RunError when that would overwrite a
    run, when config or data differ from what the run began with, or when another process trains in it."""
    begun = (path / "config.json").is_file()
    if begun and not resume:
        raise RunError(f"{path} already holds a run; add --resume to go on with it, or choose another --out")
    if resume and not begun:
        raise RunError(f"{path} holds no run to resume; leave --resume out to begin one")
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True)
    with locked(path / "lock", f"{path} is being trained by another process; wait for it or choose another --out"):
        run = RunFolder(path)
        if begun:
            _check_unchanged(path, config, data)
            _remove_unfinished(path / "stages")
        else:
            run.write_json("environment.json", [])
            run.write_json("data.json", data)
            write_atomic(path / "config.json", config.to_json().encode())  # last: from here on the run counts as begun
        try:
            yield run
        finally:
            run.close()


def _remove_unfinished(stages: Path) -> None:
    """What a killed process was writing: hidden until it would have been renamed."""
    for leftover in list(stages.rglob(".*")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def _read_config(path: Path) -> TrainConfig:
    try:
        return TrainConfig.from_json((path / "config.json").read_text())
    except NewerSchema as error:
        raise RunError(f"{path / 'config.json'}: {error}") from None
    except (UserError, OSError, ValueError) as error:
        raise RunError(
            f"{path / 'config.json'} is damaged or of another version ({error}); restore it from a copy or "
            "choose another --out"
        ) from None


def _check_unchanged(path: Path, config: TrainConfig, data: list[dict]) -> None:
    before = _read_config(path)
    if changed := differences(before, config):
        raise RunError(
            f"{path} cannot be resumed with another configuration: {'; '.join(changed)}; "
            "repeat the original settings or choose another --out"
        )
    begun_with = RunFolder(path).data()
    now = [(d["key"], d["instruction"]) for d in data]
    if [(d["key"], d["instruction"]) for d in begun_with] == now:
        return
    lost = [f"{d['instruction']!r} from {d['path']}" for d in begun_with if (d["key"], d["instruction"]) not in now]
    what = f"changed or missing: {', '.join(lost)}" if lost else "the same tasks in another number or order"
    raise RunError(
        f"{path} cannot be resumed with other data: {what}; give the {len(begun_with)} files that it began "
        "with, unchanged and in order, or choose another --out"
    )
