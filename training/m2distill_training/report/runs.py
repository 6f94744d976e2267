"""Content of run folders for the report."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m2distill_training.evaluation.drift import DRIFT
from m2distill_training.evaluation.evaluate import METRICS, is_checkpoint_evaluation, is_evaluation
from m2distill_training.runs.records import RunError, read_json
from m2distill_training.runs.run_folder import CONFIG, ENVIRONMENTS, RunFolder

TaskKey = tuple[str, str, str]  # instruction, suite and number in the suite: tasks may share an instruction


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

    def tasks(self, stage: int = -1) -> dict[TaskKey, dict]:
        """Return the evaluated tasks after a stage, by default after the last one."""
        return {task_key(task): task for task in self.evaluation["stages"][stage]["tasks"]}

    @property
    def strategy(self) -> str:
        """Return the name of the strategy; the label for the evaluation of a checkpoint."""
        return self.config.get("strategy", self.label)


def number_format(config: dict) -> str:
    """Return the number format of a training, which is any text in a damaged configuration."""
    return str(config.get("precision", "unknown"))


def methods_of(configs: Sequence[dict]) -> list[str]:
    """Return for each configuration a text that is equal for those that differ only in their seed.

    Machines have different number formats, so the format of `precision: auto` is part of the text only where one seed
    was trained in several.
    """
    formats: dict[tuple[str, str], set[str]] = defaultdict(set)
    plain = [json.dumps({**config, "seed": None, "precision": None}) for config in configs]
    for method, config in zip(plain, configs, strict=True):
        formats[method, str(config.get("seed"))].add(number_format(config))
    several = {method for (method, _), found in formats.items() if len(found) > 1}
    return [
        f"{method} {number_format(config)}" if method in several else method
        for method, config in zip(plain, configs, strict=True)
    ]


def same_method(runs: Sequence[ReportedRun]) -> list[list[ReportedRun]]:
    """Return the runs in groups that differ only in their seed."""
    groups: dict[str, list[ReportedRun]] = defaultdict(list)
    for run, method in zip(runs, methods_of([run.config for run in runs]), strict=True):
        groups[method].append(run)
    return [*groups.values()]


def task_key(task: dict) -> TaskKey:
    """Return what identifies an evaluated task."""
    return task["instruction"], str(task.get("suite", "")), str(task.get("task", ""))


def task_titles(runs: list[ReportedRun]) -> dict[TaskKey, str]:
    """Return the title of every evaluated task, in the order of learning: its instruction, and its place if need be."""
    stages = max(len(run.evaluation["stages"]) for run in runs)
    keys = dict.fromkeys(
        key for i in range(stages) for run in runs if i < len(run.evaluation["stages"]) for key in run.tasks(i)
    )
    count = Counter(instruction for instruction, _, _ in keys)
    return {key: key[0] if count[key[0]] == 1 else f"{key[0]} ({key[1]} task {key[2]})" for key in keys}


def load_runs(paths: list[Path]) -> list[ReportedRun]:
    """Read evaluated runs. Raises RunError for a folder that has not been evaluated or is damaged."""
    return [load_run(path, _short(path, paths)) for path in paths]


def _short(path: Path, paths: list[Path]) -> str:
    """Return the shortest end of a path that no other one has: its name, with as many folders as are needed."""
    others = [other.parts for other in paths if other != path]
    for n in range(1, len(path.parts)):
        if path.parts[-n:] not in [other[-n:] for other in others]:
            return str(Path(*path.parts[-n:]))
    return str(path)


def load_run(path: Path, name: str = "") -> ReportedRun:
    """Read one evaluated run, or the evaluation of one checkpoint. Raises RunError.

    Args:
        path: its folder.
        name: end of its path that no other run of the page has; by default the name of its folder.
    """
    if _is_of_checkpoint(path):
        return _checkpoint(path)
    evaluation = read_evaluation(path)
    config = read_json(path / "config.json", CONFIG)
    return ReportedRun(
        path,
        _label(name or path.name, config["strategy"]),
        config,
        RunFolder(path).data(),
        evaluation,
        RunFolder(path).metrics(),
        _drift(path / "drift.json"),
        read_json(path / "environment.json", ENVIRONMENTS),
    )


def _is_of_checkpoint(path: Path) -> bool:
    """Check whether m2distill evaluate wrote `path` for a checkpoint: it then is no run folder."""
    file = path / "evaluation.json"
    return file.is_file() and not (path / "config.json").is_file() and "checkpoint" in read_json(file, dict)


def _checkpoint(path: Path) -> ReportedRun:
    """The evaluation of one checkpoint as a run with one stage. What only a run has stays empty."""
    evaluation = read_json(
        path / "evaluation.json", is_checkpoint_evaluation, "evaluate the checkpoint again: m2distill evaluate"
    )
    tasks = evaluation["tasks"]
    place = Path(evaluation["checkpoint"])
    label = "/".join(place.parts[-4:-1]) if place.name == "checkpoint" else place.name
    unknown = dict.fromkeys(METRICS)
    as_run = {
        "episodes_per_task": evaluation["episodes_per_task"],
        "stages": [{"checkpoint_id": evaluation["checkpoint_id"], "tasks": tasks}],
        "matrix": [[sum(task["success_rate"] for task in tasks) / len(tasks)]],
        "metrics": unknown,
        "intervals_95": unknown,
    }
    data = [{"instruction": task["instruction"], "demos": "-", "path": "-", "key": "-"} for task in tasks]
    settings = {name: value for name, value in evaluation.items() if name not in ("tasks", "ran")}
    return ReportedRun(path, label or str(place), {**settings, "seed": "-"}, data, as_run, [], [], [])


def read_evaluation(run: Path) -> dict:
    """Read evaluation.json of a run folder. Raises RunError."""
    if not run.is_dir():
        raise RunError(f"{run} does not exist; give a run folder, the --out of m2distill train")
    if not (run / "evaluation.json").is_file():
        raise RunError(f"{run} has no evaluation.json; run: m2distill evaluate {run}")
    return read_json(run / "evaluation.json", is_evaluation, f"run again: m2distill evaluate {run}")


def _label(name: str, strategy: str) -> str:
    return strategy if name == strategy else f"{strategy} ({name})"


def _drift(path: Path) -> list[dict]:
    again = "measure it again: m2distill report --drift"
    return read_json(path, DRIFT, again)["entries"] if path.is_file() else []
