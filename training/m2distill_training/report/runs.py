"""Content of run folders for the report."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from m2distill_training.evaluation.drift import DRIFT
from m2distill_training.evaluation.evaluate import is_evaluation
from m2distill_training.runs.records import RunError, read_json
from m2distill_training.runs.run_folder import CONFIG, ENVIRONMENTS, RunFolder


@dataclass(frozen=True)
class ReportedRun:
    """What the report shows of one run."""

    path: Path
    label: str  # unique on the page
    config: dict
    data: list[dict]  # in the order of learning
    evaluation: dict
    metrics: list[dict]
    drift: list[dict]  # entries of drift.json; empty if it was not measured
    environments: list[dict]

    @property
    def method(self) -> str:
        """Return a text that is equal for runs that differ only in their seed."""
        return json.dumps({**self.config, "seed": None})


def load_runs(paths: list[Path]) -> list[ReportedRun]:
    """Read evaluated runs. Raises RunError for a folder that has not been evaluated or is damaged."""
    named = Counter(path.name for path in paths)
    return [_load_run(path, named[path.name] == 1) for path in paths]


def _load_run(path: Path, name_is_unique: bool) -> ReportedRun:
    evaluation = read_evaluation(path)
    config = read_json(path / "config.json", CONFIG)
    return ReportedRun(
        path,
        _label(path, config["strategy"], name_is_unique),
        config,
        RunFolder(path).data(),
        evaluation,
        RunFolder(path).metrics(),
        _drift(path / "drift.json"),
        read_json(path / "environment.json", ENVIRONMENTS),
    )


def read_evaluation(run: Path) -> dict:
    """Return the content of a run's evaluation.json. Raises RunError."""
    if not (run / "evaluation.json").is_file():
        raise RunError(f"{run} has no evaluation.json; run: m2distill evaluate {run}")
    return read_json(run / "evaluation.json", is_evaluation, f"run again: m2distill evaluate {run}")


def _label(path: Path, strategy: str, name_is_unique: bool) -> str:
    if path.name == strategy and name_is_unique:
        return strategy
    return f"{strategy} ({path.name if name_is_unique else path})"


def _drift(path: Path) -> list[dict]:
    again = "measure it again: m2distill report --drift"
    return read_json(path, DRIFT, again)["entries"] if path.is_file() else []
