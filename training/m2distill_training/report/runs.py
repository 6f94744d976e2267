"""Run folders as the report sees them."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from m2distill_training.run import RunError, RunFolder, read_json


@dataclass(frozen=True)
class Run:
    path: Path
    label: str  # unique on the page
    config: dict
    data: list[dict]  # in the order of learning
    evaluation: dict
    metrics: list[dict]
    drift: list[dict]  # entries of drift.json; empty when it was not measured
    environments: list[dict]

    @property
    def method(self) -> str:
        """Equal for runs that differ in their seed alone."""
        return json.dumps({**self.config, "seed": None})


def load_runs(paths: list[Path]) -> list[Run]:
    """Raises RunError for a folder that has not been evaluated."""
    configs = [_evaluated_config(path) for path in paths]
    named = Counter(path.name for path in paths)
    return [Run(path, _label(path, config["strategy"], named[path.name] == 1), config, read_json(path / "data.json"),
                read_json(path / "evaluation.json"), RunFolder(path).metrics(), _drift(path / "drift.json"),
                read_json(path / "environment.json")) for path, config in zip(paths, configs, strict=True)]


def _evaluated_config(path: Path) -> dict:
    if not (path / "evaluation.json").is_file():
        raise RunError(f"{path} has no evaluation.json; run: m2distill evaluate {path}")
    return read_json(path / "config.json")


def _label(path: Path, strategy: str, name_is_unique: bool) -> str:
    if path.name == strategy and name_is_unique:
        return strategy
    return f"{strategy} ({path.name if name_is_unique else path})"


def _drift(path: Path) -> list[dict]:
    return read_json(path)["entries"] if path.is_file() else []
