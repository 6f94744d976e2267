"""A copy of a run's log in an experiment tracker: wandb, mlflow or trackio. The run folder remains the record.

The copy follows metrics.jsonl, so training does not depend on the tracker: if it fails, one line is printed and
training continues. tracking.json in the run folder names the tracker's run and the last step sent, so that a resumed
run, and its evaluation, are added to the same one. Without a network: WANDB_MODE=offline; mlflow writes to RUN/mlflow
unless MLFLOW_TRACKING_URI is set; trackio always writes to this machine.
"""

import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from m2distill_policy.errors import UserError, unknown_name
from m2distill_training.runs.records import read_json, write_json
from m2distill_training.runs.run_folder import RunFolder
from m2distill_training.runs.tensorboard import Points, log_points
from m2distill_training.utils.schemas import fits, is_count, is_text

PROJECT = "m2distill"
RECORD, STEP = "tracking.json", "global_step"
SYNC_S = 10.0  # between two looks at the log


class Tracker(Protocol):
    """One run in a tracker."""

    run_id: str

    def log(self, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class Wandb:
    def __init__(self, path: Path, config: dict, run_id: str):
        import wandb

        settings = wandb.Settings(silent=True, console="off")
        self._run = wandb.init(
            project=PROJECT,
            name=path.name,
            config=config,
            id=run_id or None,
            resume="allow",
            dir=str(path),
            settings=settings,
        )
        self._run.define_metric("*", step_metric=STEP)  # wandb's own step cannot go back to the end of a stage
        self.run_id = self._run.id

    def log(self, step: int, values: dict[str, float]) -> None:
        self._run.log({STEP: step, **values})

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    def __init__(self, path: Path, config: dict, run_id: str):
        mlflow = _installed("mlflow", "mlflow-skinny")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else a folder is rejected as a store
        uri = os.environ.get("MLFLOW_TRACKING_URI", (path / "mlflow").absolute().as_uri())
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
        self.run_id = run_id or self._client.create_run(experiment, run_name=path.name).info.run_id
        if not run_id:
            for name, value in config.items():
                self._client.log_param(self.run_id, name, value)

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self.run_id, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self.run_id)


class Trackio:
    def __init__(self, path: Path, config: dict, run_id: str):
        self._trackio = _installed("trackio", "trackio")
        self.run_id = run_id or path.name
        self._trackio.init(project=PROJECT, name=self.run_id, config=config, resume="allow")

    def log(self, step: int, values: dict[str, float]) -> None:
        self._trackio.log(values, step=step)

    def close(self) -> None:
        self._trackio.finish()


TRACKERS: dict[str, Callable[[Path, dict, str], Tracker]] = {"wandb": Wandb, "mlflow": Mlflow, "trackio": Trackio}


def _installed(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise UserError(f"--track {module} needs the Python package {package}; pip install {package}") from None


def check_tracker(name: str) -> None:
    """Raise UserError for a tracker that is unknown or not installed."""
    if name not in TRACKERS:
        raise UserError(unknown_name("tracker", name, TRACKERS))
    _installed(name, {"mlflow": "mlflow-skinny"}.get(name, name))


class RunTracking:
    """Sends what is new in a run's log to a tracker, at most every SYNC_S seconds.

    Args:
        path: the run folder, which must exist when something is sent.
        name: one of TRACKERS.

    Raises:
        UserError: the tracker is unknown or not installed.
    """

    def __init__(self, path: Path, name: str):
        check_tracker(name)
        self._path, self._name = path, name
        self._tracker: Tracker | None = None
        self._sent, self._next, self._failed = 0, 0.0, False

    def sync(self, now: bool = False) -> None:
        """Send the lines that were logged since the last call."""
        if self._failed or (not now and time.monotonic() < self._next) or not (self._path / "metrics.jsonl").is_file():
            return
        self._next = time.monotonic() + SYNC_S
        self.send([])

    def send(self, further: Points) -> None:
        """Send the log, and `further` points, such as the success rates of an evaluation."""
        try:
            self._begin()
            new = [point for point in log_points(RunFolder(self._path).metrics()) if point[0] > self._sent]
            assert self._tracker is not None
            for step, values in sorted([*new, *further], key=lambda point: point[0]):
                self._tracker.log(step, values)
            self._sent = max([self._sent, *(step for step, _ in new)])
            self._record()
        except Exception as error:  # a tracker and its network may fail in any way; training must not
            self._failed = True
            print(f"m2distill: warning: {self._name} receives nothing more: {error!s:.200}", file=sys.stderr)

    def close(self) -> None:
        """Send what is left and end the tracker's run."""
        self.sync(now=True)
        if self._tracker is not None and not self._failed:
            self._tracker.close()

    def _begin(self) -> None:
        if self._tracker is None:
            file = self._path / RECORD
            known = read_json(file, _is_record) if file.is_file() else {}
            before = known.get(self._name, {"id": "", "sent": 0})
            config = read_json(self._path / "config.json", {})
            flat = {name: str(value) for name, value in config.items()}
            self._tracker, self._sent = TRACKERS[self._name](self._path, flat, before["id"]), before["sent"]

    def _record(self) -> None:
        assert self._tracker is not None
        file = self._path / RECORD
        known = read_json(file, _is_record) if file.is_file() else {}
        write_json(file, {**known, self._name: {"id": self._tracker.run_id, "sent": self._sent}}, _is_record)


def _is_record(value: Any) -> bool:
    return fits(value, {}) and all(
        is_text(name) and fits(entry, {"id": is_text, "sent": is_count}) for name, entry in value.items()
    )
