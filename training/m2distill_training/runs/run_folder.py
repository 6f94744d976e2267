"""A run folder: what a training run writes, and when a run may be continued.

config.json             the TrainConfig, seed included, text encoder resolved
data.json               the datasets in task order, with their content keys
environment.json        versions, machine, threads and source: one entry for each start that trained
metrics.jsonl           one line per logged gradient step
tensorboard/            the same, success and drift as events on one axis of gradient steps
stages/<n>/checkpoint/  the policy after stage n, from 1; its metrics.json names its parent and its datasets
stages/<n>/replay.json  demos replayed in stage n
stages/<n>/state.pt     state of a stage in progress: weights, average, optimiser, gradient step
memory/<task>/          demos of every task, from 0, for further stages (data/task_memory.py), and with the strategy
                        stored their mixtures (engine/stored_mixtures.py)
episodes.jsonl          one line per episode of m2distill evaluate
evaluation.json         success after every stage, success matrix, metrics
lock                    held while a process trains here
"""

import hashlib
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.utils.schema import NewerSchema, with_schema, without_schema
from m2distill_training.config import TrainConfig, differences
from m2distill_training.runs.provenance import ENVIRONMENT, environment
from m2distill_training.runs.records import (
    RunError,
    append_line,
    locked,
    read_json,
    read_lines,
    write_atomic,
    write_json,
    write_lines,
    writing,
)
from m2distill_training.runs.tensorboard import FOLDER, ScalarEvents, log_values, stage_ends
from m2distill_training.utils.schemas import fits, is_anything, is_count, is_number, is_text, non_empty

DATA = non_empty({"instruction": is_text, "key": str, "path": str, "demos": is_count})  # data.json
CONFIG = {"strategy": is_text, "seed": is_count}  # config.json, as far as reports read it
ENVIRONMENTS = [ENVIRONMENT]  # environment.json
SCHEMAS = {"data.json": DATA, "environment.json": ENVIRONMENTS}  # of records that a run writes and reads again


def has_learned(checkpoint: Checkpoint, dataset: dict) -> bool:
    """Return True if a checkpoint serves the task of a dataset, an entry of its run's data.json."""
    learned = checkpoint.metrics.get("learned")
    known = dataset["instruction"] in checkpoint.instructions
    return known and (not isinstance(learned, list) or dataset["key"] in learned)


def is_logged(line: Any) -> bool:
    """Return True for a line of metrics.jsonl. A loss may have any size."""
    return fits(line, {"stage": is_count, "step": is_count}) and all(
        is_text(name) and (type(value) is float or is_number(value)) for name, value in line.items()
    )


class RunFolder:
    """Paths, records and states of a run. Stages count from 1.

    `open_run` creates it for writing and holds the lock; it can be created without a lock for reading.
    """

    def __init__(self, path: Path):
        self.path = path
        self._events: ScalarEvents | None = None
        self._steps_before = 0  # gradient steps of the stages before the one that is logged
        self._environment_is_recorded = False

    def data(self) -> list[dict]:
        """Return the datasets in the order of learning. Raises RunError."""
        return read_json(self.path / "data.json", DATA)

    def stage_folder(self, stage: int) -> Path:
        return self.path / "stages" / str(stage)

    def checkpoint(self, stage: int) -> Path:
        return self.stage_folder(stage) / "checkpoint"

    def curve(self, stage: int) -> list[Path]:
        """Return checkpoints at equal distances from the first to the last gradient step of a stage.

        The list is empty if the run keeps none.
        """
        return self.curve_beside(self.checkpoint(stage))

    @staticmethod
    def curve_beside(checkpoint: Path) -> list[Path]:
        """Return the curve of the stage that ended in a checkpoint."""
        folders = checkpoint.with_name("curve").glob("*")
        return sorted((path for path in folders if path.name.isdigit()), key=lambda path: int(path.name))

    def memory(self, task: int, name: str) -> Path:
        """Return a part of the memory of the task at place `task` of data.json: "replay", "held_out" or a file."""
        return self.path / "memory" / str(task) / name

    def forget_memory(self, task: int) -> None:
        folder = self.path / "memory" / str(task)
        with writing(folder):
            if folder.is_dir():
                shutil.rmtree(folder)

    def state(self, stage: int) -> Path:
        return self.stage_folder(stage) / "state.pt"

    def lineage(self, stage: int, keys: list[tuple[str, str]]) -> dict:
        """Return the origin of a stage's checkpoint, JSON-ready.

        "parent" is the id of the previous checkpoint, None for the first; "data" is the content key of every dataset
        learned so far, by instruction, and "learned" are all keys, because tasks may share an instruction. "tasks" are
        the names of the tasks that are known.

        Args:
            stage: number of the stage.
            keys: instruction and content key of every dataset learned so far.
        """
        learned = [key for _, key in keys]
        tasks = [d["task"] for d in self.data() if d["key"] in learned and d.get("task")]
        return {
            "parent": load_checkpoint(self.checkpoint(stage - 1)).id if stage > 1 else None,
            "data": dict(keys),
            "learned": learned,
            **({"tasks": tasks} if tasks else {}),
        }

    def write_json(self, name: str, value: object, schema: object = None) -> None:
        """Write the record `name`. Raises RunError for one that its reader would reject."""
        write_json(self.path / name, value, schema or SCHEMAS.get(name, is_anything))

    def record_environment(self, processes: int) -> None:
        """Record a start of training with that many processes; once per object. Raises RunError."""
        if not self._environment_is_recorded:
            entries = read_json(self.path / "environment.json", ENVIRONMENTS)
            self.write_json("environment.json", [*entries, environment() | {"processes": processes}])
            self._environment_is_recorded = True

    def save_state(self, stage: int, state: dict) -> None:
        """Save the state of a stage in progress: a line with the sha256 of the rest, then torch's format."""
        buffer = io.BytesIO()
        torch.save(with_schema(state), buffer)
        content = buffer.getvalue()
        write_atomic(self.state(stage), hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    def load_state(self, stage: int) -> dict | None:
        """Return the saved state of a stage on the CPU, None if there is none. Raises RunError for a damaged one."""
        if not self.state(stage).is_file():
            return None
        digest, _, content = self.state(stage).read_bytes().partition(b"\n")
        if digest != hashlib.sha256(content).hexdigest().encode():
            raise RunError(
                f"{self.state(stage)} is damaged; restore it from a copy, or remove it to repeat stage {stage} "
                "from its beginning. Earlier checkpoints are unchanged"
            )
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception:  # bytes with a correct sum that no run has written fail in any way
            raise RunError(f"{self.state(stage)} is no saved state of this version; restore it from a copy") from None
        return without_schema(state, self.state(stage))

    def save_checkpoint(self, path: Path, checkpoint: Checkpoint) -> None:
        save_checkpoint(path, checkpoint)

    def metrics(self) -> list[dict]:
        """Return the lines of metrics.jsonl. Raises RunError."""
        return read_lines(self.path / "metrics.jsonl", is_logged)

    def forget_metrics_after(self, stage: int, step: int) -> None:
        """Drop the lines and events that a stage continued after gradient step `step` writes again."""
        kept = [line for line in self.metrics() if (line["stage"], line["step"]) <= (stage, step)]
        write_lines(self.path / "metrics.jsonl", kept)
        self.close()
        self._events = ScalarEvents(self.path / FOLDER, f"stage_{stage}")
        self._steps_before = stage_ends(kept).get(stage - 1, 0)
        for line in kept:
            if line["stage"] == stage:
                self._write_events(line)

    def log(self, line: dict) -> None:
        """Log "stage", "step" and named numbers; `forget_metrics_after` must have begun the stage."""
        append_line(self.path / "metrics.jsonl", line, is_logged)
        self._write_events(line)

    def _write_events(self, line: dict) -> None:
        assert self._events is not None  # forget_metrics_after came first
        self._events.write(self._steps_before + line["step"], log_values(line))

    def close(self) -> None:
        """Close the event file."""
        if self._events is not None:
            self._events.close()
            self._events = None


class ReadOnlyRun(RunFolder):
    """Run folder that another process writes; its own write methods do nothing."""

    def _ignore(self, *args: Any, **kwargs: Any) -> None:
        pass

    write_json = record_environment = save_state = save_checkpoint = forget_metrics_after = log = _ignore


def follow_run(path: Path) -> RunFolder:
    """Return the run folder that another process has opened and writes, for reading."""
    return ReadOnlyRun(path)


def read_run(path: Path) -> tuple[TrainConfig, list[dict]]:
    """Return the configuration and the datasets of a run. Raises RunError."""
    if not (path / "config.json").is_file():
        raise RunError(f"{path} is no run folder; give the --out of m2distill train")
    return _read_config(path), RunFolder(path).data()


@contextmanager
def open_run(path: Path, config: TrainConfig, data: list[dict], resume: bool) -> Iterator[RunFolder]:
    """Create a run folder, or with `resume` open an existing one, and hold its lock.

    Args:
        path: the folder.
        config: the run's configuration; must equal that of an existing run.
        data: the datasets, as in data.json; must equal those of an existing run.
        resume: continue an existing run.

    Raises:
        RunError: a run would be overwritten or continued with other settings or data, or another process trains in it.
    """
    begun = (path / "config.json").is_file()
    if begun and not resume:
        raise RunError(f"{path} already holds a run; add --resume to continue it, or choose another --out")
    if resume and not begun:
        raise RunError(f"{path} holds no run to resume; leave --resume out to begin one")
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    with locked(path / "lock", f"{path} is being trained by another process; wait for it or choose another --out"):
        run = RunFolder(path)
        if begun:
            _check_unchanged(path, config, data)
            _remove_unfinished(path / "stages")
            _remove_unfinished(path / "memory")
        else:
            run.write_json("environment.json", [])
            run.write_json("data.json", data)
            write_atomic(path / "config.json", config.to_json().encode())  # last: from here on the run has begun
        try:
            yield run
        finally:
            run.close()


def _remove_unfinished(folder: Path) -> None:
    """Remove what a killed process was writing: its names are hidden until they are renamed."""
    for leftover in list(folder.rglob(".*")):
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
    """Raise RunError unless a run has the same configuration and datasets."""
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
