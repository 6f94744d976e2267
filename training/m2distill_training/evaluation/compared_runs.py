"""Evaluated runs of a comparison: reading them, grouping them by strategy, and checking that they are comparable."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m2distill_policy.errors import UserError
from m2distill_training.report.runs import load_run, methods_of
from m2distill_training.runs.records import RunError
from m2distill_training.utils.schemas import fits, is_count, is_text, non_empty

EPISODE = {"state": is_count, "success": bool}
TASK = {"instruction": is_text, "suite": is_text, "task": is_count, "assets": is_text, "runs": non_empty(EPISODE)}
COMPARED = {
    "episodes_per_task": is_count,
    "sampling": is_text,
    "max_steps": is_count,
    "stages": non_empty({"tasks": non_empty(TASK)}),
    # optional: "starts", "assets_content", "versions" and "episodes_earlier"
}  # the entries of evaluation.json that a comparison reads


@dataclass(frozen=True)
class ComparedRun:
    """One evaluated run of a comparison."""

    path: Path
    name: str  # of its group, as the user gave it; empty if the strategy names it
    strategy: str
    config: dict
    seed: int
    settings: dict  # equal for all runs that may be compared
    data: dict[str, str]  # instruction -> content key of its demonstrations
    versions: dict
    learned: tuple[int, ...]  # stage of each task, from 0
    episodes: np.ndarray  # (T, K, E) bool: task, stage, start that all stages have

    @property
    def stages(self) -> int:
        return self.episodes.shape[1]


def read_groups(runs: Iterable[str | Path]) -> dict[str, list[ComparedRun]]:
    """Return label -> runs that differ only in their seed, in its order.

    Args:
        runs: run folders and folders of studies; NAME=FOLDER names the group of a run.

    Raises:
        UserError: the runs cannot be compared.
    """
    groups = _groups([_read(name, path) for name, path in _expanded(runs)])
    _check_comparable([run for group in groups.values() for run in group])
    return groups


def _expanded(runs: Iterable[str | Path]) -> list[tuple[str, Path]]:
    """Return (name of the group or "", run folder) of every run; a study is replaced by its runs. Raises UserError."""
    found = []
    for given in runs:
        name, equals, rest = str(given).partition("=")
        if Path(given).exists() or not equals:
            name, rest = "", str(given)
        path = Path(rest)
        if not (path / "study.json").is_file():
            found.append((name, path))
            continue
        from m2distill_training.experiments.study_plan import FIRST
        from m2distill_training.experiments.study_results import study_runs

        in_study = [(variant, run) for variant, run in study_runs(path) if variant != FIRST]
        if not in_study:
            raise UserError(f"{path} is a study without runs; repeat its m2distill study command")
        found += [(f"{name}:{variant}" if name else variant, run) for variant, run in in_study]
    if not found:
        raise UserError("no run folder given; name the --out of m2distill train or study")
    return list(dict.fromkeys(found))


def _read(name: str, path: Path) -> ComparedRun:
    """Raises RunError for a run without evaluation, or with one that lacks what a comparison needs."""
    run = load_run(path)
    evaluation, again = run.evaluation, f"run again: m2distill evaluate {path}"
    if "strategy" not in run.config:
        raise RunError(f"{path} is the evaluation of one checkpoint; give run folders, the --out of m2distill train")
    optional = {name: evaluation.get(name, {}) for name in ("assets_content", "versions")}
    earlier = evaluation.get("episodes_earlier", 1)
    if not fits(evaluation, COMPARED) or not fits(optional, dict.fromkeys(optional, dict)) or not is_count(earlier):
        raise RunError(f"{path}/evaluation.json lacks what a comparison needs; {again}")
    stages = evaluation["stages"]
    tasks = list(dict.fromkeys(_task_name(task) for stage in stages for task in stage["tasks"]))
    by_stage = [{_task_name(task): task for task in stage["tasks"]} for stage in stages]
    learned = tuple(next(k for k, stage in enumerate(by_stage) if task in stage) for task in tasks)
    states = common_starts(stages[0]["tasks"][0], evaluation.get("episodes_earlier"))
    episodes = np.zeros((len(tasks), len(stages), len(states)), dtype=bool)
    for t, task in enumerate(tasks):
        for k in range(learned[t], len(stages)):
            rows = by_stage[k].get(task, {"runs": []})["runs"]
            success = {row["state"]: row["success"] for row in rows}
            exact = len(success) == len(rows) and ("episodes_earlier" in evaluation or len(rows) == len(states))
            if not exact or not success.keys() >= set(states):
                raise RunError(f"{path}/evaluation.json has other episodes after stage {k + 1} of {task!r}; {again}")
            episodes[t, k] = [success[state] for state in states]
    settings = {
        "tasks": sorted(tasks),
        "starts": evaluation.get("starts", "report"),
        "start states": list(states),
        "episodes per task": evaluation["episodes_per_task"],
        "episodes of earlier tasks": evaluation.get("episodes_earlier", evaluation["episodes_per_task"]),
        "sampling": evaluation["sampling"],
        "max_steps": evaluation["max_steps"],
        "assets": sorted({task["assets"] for stage in stages for task in stage["tasks"]}),
        "content of assets": sorted(f"{suite}: {x}" for suite, x in evaluation.get("assets_content", {}).items()),
    }
    order = np.argsort(tasks, kind="stable")  # runs of one stage may list the tasks in another order
    return ComparedRun(
        path,
        name,
        run.config["strategy"],
        run.config,
        run.config["seed"],
        settings,
        {d["instruction"]: d["key"] for d in run.data},
        evaluation.get("versions", {}),
        tuple(learned[t] for t in order),
        episodes[order],
    )


def common_starts(task: dict, earlier: int | None) -> tuple[int, ...]:
    """Return the starts that every stage has, from a task of the first stage. Fewer are run of earlier tasks."""
    states = sorted(episode["state"] for episode in task["runs"])
    return tuple(states[:earlier])


def _task_name(task: dict) -> str:
    return f"{task['suite']} {task['task']}: {task['instruction']}"


def _groups(runs: list[ComparedRun]) -> dict[str, list[ComparedRun]]:
    """Return label -> runs in the order of their seeds. Raises UserError for two runs of one seed in a group."""
    keyed: dict[tuple[str, str], list[ComparedRun]] = {}
    for run, method in zip(runs, methods_of([{**run.config, "name": run.name} for run in runs]), strict=True):
        keyed.setdefault((run.name, method), []).append(run)
    plain = Counter(name or group[0].strategy for (name, _), group in keyed.items())
    groups: dict[str, list[ComparedRun]] = {}
    for (name, _), group in keyed.items():
        label = name or group[0].strategy
        if plain[label] > 1:  # several settings of one strategy
            folder = group[0].path.name
            label = f"{label} ({re.sub(r'[-_.]?[0-9]+$', '', folder) or folder})"
            label = f"{label} ({group[0].path})" if label in groups else label
        for a, b in itertools.pairwise(sorted(group, key=lambda run: run.seed)):
            if a.seed == b.seed:
                raise UserError(
                    f"{a.path} and {b.path} both are {label} with seed {a.seed}, expected each seed once; "
                    "leave one out, or name two groups by NAME=FOLDER"
                )
        groups[label] = sorted(group, key=lambda run: run.seed)
    return groups


def _check_comparable(runs: list[ComparedRun]) -> None:
    """Raise UserError unless all runs were evaluated alike and learned the same tasks in the same stages."""
    reference = runs[0]
    for run in runs[1:]:
        for name, value in reference.settings.items():
            unknown = name == "content of assets" and not (value and run.settings[name])  # of an older version
            if run.settings[name] != value and not unknown:
                raise UserError(
                    f"{run.path} has {name} {_shown(run.settings[name], value)}, {reference.path} has "
                    f"{_shown(value, run.settings[name])}; evaluate both alike: m2distill evaluate RUN"
                )
    sequential = [run for run in runs if run.stages > 1]
    for run in sequential[1:]:
        if (run.learned, run.stages) != (sequential[0].learned, sequential[0].stages):
            raise UserError(
                f"{run.path} learned the tasks in other stages than {sequential[0].path}: expected the same order and "
                "protocol; compare runs of one protocol"
            )


def _shown(value: object, other: object) -> str:
    """Return a value as text; of two long lists, what the other one lacks."""
    if isinstance(value, list) and isinstance(other, list) and len(value) > 3:
        extra = [x for x in value if x not in other]
        return f"{len(value)} values" + (f" with {', '.join(map(str, extra[:3]))}" if extra else "")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
