"""Evaluation: success rates of a checkpoint, of a task and of a run.

Episodes run in worker processes (rollout_jobs.py). Each depends only on its own spec, so neither the number of workers
nor an interruption changes a result: an evaluation, except for "ran", is bit-identical on the same versions.
"""

import os
import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from m2distill_policy.action import DEFAULT_SAMPLING
from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.robot import not_simulated
from m2distill_sim.suites import Task, assets_of, find_task
from m2distill_training.evaluation.metrics import final_success_metrics, libero_metrics, sum_interval, wilson_interval
from m2distill_training.evaluation.rollout_jobs import ProgressCallbacks, is_video, run_rollouts
from m2distill_training.evaluation.rollout_specs import ENVIRONMENTS, RolloutResult, RolloutSpec, make_specs
from m2distill_training.evaluation.run_specs import known_tasks, run_specs
from m2distill_training.runs.provenance import environment, result_versions
from m2distill_training.runs.records import writing
from m2distill_training.runs.run_folder import RunFolder
from m2distill_training.runs.tensorboard import FOLDER, success_points, write_events
from m2distill_training.utils.schemas import fits, is_count, is_number, is_rate, is_text, non_empty, optional

EPISODES = "episodes.jsonl"

METRICS = {"fwt": is_number, "nbt": optional(is_number), "auc": is_number}


def _is_pair(value: Any) -> bool:
    return fits(value, [is_number]) and len(value) == 2


def _is_task(value: Any) -> bool:
    return (
        fits(
            value,
            {
                "instruction": is_text,
                "successes": is_count,
                "episodes": is_count,
                "success_rate": is_rate,
                "wilson_95": _is_pair,
                "runs": [{"success": bool, "steps": is_count, "video": optional(is_video)}],
            },
        )
        and value["successes"] <= value["episodes"] != 0
    )


def is_evaluation(value: Any) -> bool:
    """Return True for the parts of a run's evaluation.json that are read again."""
    return fits(
        value,
        {
            "episodes_per_task": is_count,
            "stages": non_empty({"checkpoint_id": str, "tasks": non_empty(_is_task)}),
            "matrix": [[optional(is_rate)]],
            "metrics": METRICS,
            "intervals_95": dict.fromkeys(METRICS, optional(_is_pair)),
        },
    ) and (
        {len(value["stages"])} == {len(value["matrix"]), *map(len, value["matrix"])}
        and all((value["metrics"][name] is None) == (value["intervals_95"][name] is None) for name in METRICS)
        and fits(value.get("libero_metrics", dict.fromkeys(METRICS, 0)), dict.fromkeys(METRICS, is_number))
    )


def is_checkpoint_evaluation(value: Any) -> bool:
    """Check evaluation.json of one checkpoint, as far as it is read again."""
    form = {"checkpoint": is_text, "checkpoint_id": str, "episodes_per_task": is_count, "tasks": non_empty(_is_task)}
    return fits(value, form)


def _load_for_simulation(path: Path) -> Checkpoint:
    """Return a checkpoint of the simulated robot. Raises UserError for one of another robot."""
    checkpoint = load_checkpoint(path)
    if problem := not_simulated(checkpoint.spec):
        raise UserError(
            f"{path} cannot be evaluated in simulation, which has LIBERO's Panda: {problem}; test it on its robot"
        )
    return checkpoint


def evaluate_checkpoint(
    checkpoint: Path,
    tasks: Sequence[Task],
    episodes: int,
    out: Path,
    *,
    sampling: str = DEFAULT_SAMPLING,
    seed: int = 0,
    max_steps: int = 600,
    workers: int | None = None,
    cluster: str | None = None,
    assets: str | None = None,
    starts: str = "report",
    environments: int = ENVIRONMENTS,
    videos: bool = True,
    callbacks: ProgressCallbacks = ProgressCallbacks(),
) -> dict:
    """Run held-out episodes of each task; write evaluation.json in `out` and return its content.

    Args:
        checkpoint: folder of the checkpoint.
        tasks: tasks that it knows.
        episodes: per task.
        out: folder of the results.
        sampling: see action.SAMPLING_MODES.
        seed: of the samples from the policy's mixture.
        max_steps: control steps after which an episode has failed.
        workers: CPUs for episodes, see open_executor; 0: this process.
        cluster: a Ray cluster, see open_executor.
        assets: see find_assets; default: $M2DISTILL_ASSETS, else builtin.
        starts: "report", or "choice" for starts that are never reported; see suites.held_out.
        environments: simulators per process that share a forward pass of the network; see batched_policy.py.
        videos: write videos/ of every failure and of each task's first state.
        callbacks: called while episodes run.

    Raises:
        UserError: the tasks, the settings or the folder do not permit it.
    """
    if (out / "data.json").is_file():
        raise UserError(f"{out} is a run folder with an evaluation of its own; choose another --out")
    settings = (episodes, sampling, seed, max_steps, assets, out / "videos" if videos else None, starts, environments)
    specs = make_specs(checkpoint, tasks, *settings)
    known = _load_for_simulation(checkpoint)
    strange = {t.instruction for t in tasks} - {t.instruction for t in known_tasks(known.instructions, tasks)}
    if strange:
        raise UserError(
            f"{checkpoint} does not know {min(strange)!r}, only {sorted(known.instructions)}; leave "
            "--tasks out to evaluate what it knows"
        )
    results, ran = _run(specs, workers, cluster, out, callbacks)
    evaluation = {
        "checkpoint": str(checkpoint),
        "checkpoint_id": known.id,
        **_settings(specs[0], episodes, starts),
        "assets_content": _assets_content(specs),
        "tasks": _task_summaries(results, out),
        "ran": ran,
    }
    RunFolder(out).write_json("evaluation.json", evaluation)
    return evaluation


def _settings(spec: RolloutSpec, episodes: int, starts: str) -> dict:
    """Return the settings that all episodes share, from one of their specs."""
    return {
        "episodes_per_task": episodes,
        "starts": starts,
        "sampling": spec.sampling,
        "seed": spec.seed,
        "max_steps": spec.max_steps,
        "environments": spec.environments,
        "versions": result_versions(),
    }


def _assets_content(specs: Iterable[RolloutSpec]) -> dict[str, str]:
    """Return suite -> name of its assets' content, which does not depend on where they are stored."""
    return {
        suite: assets_of(suite, assets).identity()
        for suite, assets in {spec.suite: spec.assets for spec in specs}.items()
    }


def _run(
    specs: list[RolloutSpec], workers: int | None, cluster: str | None, folder: Path, callbacks: ProgressCallbacks
) -> tuple[list[RolloutResult], dict]:
    """Return the results, and how they were obtained: what differs between repetitions."""
    began, repeated, total = time.monotonic(), [], 0

    def on_begin(episodes: int) -> None:
        nonlocal total
        total = episodes
        callbacks.begin(episodes)

    def on_repeat(spec: RolloutSpec, reason: str) -> None:
        repeated.append({"suite": spec.suite, "task": spec.task, "state": spec.state, "reason": reason})
        callbacks.repeat(spec, reason)

    counting = replace(callbacks, begin=on_begin, repeat=on_repeat)
    results = run_rollouts(specs, workers, folder / EPISODES, counting, cluster)
    now = environment()
    return results, {
        "workers": workers,
        "cluster": cluster,
        "episodes": total,
        "seconds": round(time.monotonic() - began, 1),
        "repeated": repeated,
        **{name: now[name] for name in ("started", "source", "python", "system", "cpu", "cores")},
    }


def _task_summaries(results: list[RolloutResult], base: Path) -> list[dict]:
    """Return one entry per task, in the order of their first result; paths of videos are relative to `base`."""
    tasks: dict[tuple[str, int], list[RolloutResult]] = {}
    for result in results:
        tasks.setdefault((result.spec.suite, result.spec.task), []).append(result)
    return [_task_summary(of_task, base) for of_task in tasks.values()]


def _task_summary(results: list[RolloutResult], base: Path) -> dict:
    """Return the entry of one task; its failures come first."""
    spec, successes = results[0].spec, sum(r.success for r in results)
    taken = [r.steps for r in results if r.success]
    return {
        "suite": spec.suite,
        "task": spec.task,
        "instruction": find_task(spec.suite, spec.task).instruction,
        "assets": assets_of(spec.suite, spec.assets).label,
        "successes": successes,
        "episodes": len(results),
        "success_rate": successes / len(results),
        "wilson_95": list(wilson_interval(successes, len(results))),
        "steps_to_success": {"median": float(np.median(taken)), "longest": max(taken)} if taken else None,
        "runs": [
            {
                "state": r.spec.state,
                "success": r.success,
                "steps": r.steps,
                "held": r.held,
                "video": os.path.relpath(r.video, base) if r.video else None,
            }
            for r in sorted(results, key=lambda r: (r.success, r.spec.state))
        ],
    }


def evaluate_run(
    run: Path,
    suite_names: Sequence[str],
    episodes: int,
    *,
    sampling: str = DEFAULT_SAMPLING,
    seed: int = 0,
    max_steps: int = 600,
    workers: int | None = None,
    cluster: str | None = None,
    assets: str | None = None,
    starts: str = "report",
    environments: int = ENVIRONMENTS,
    episodes_earlier: int | None = None,
    callbacks: ProgressCallbacks = ProgressCallbacks(),
) -> dict:
    """Evaluate every task learned so far after every stage; see `write_evaluation`.

    Videos show every failure after the last stage, and each task's first state. After stage i a task is served by the
    newest checkpoint up to i that knows its instruction. That is checkpoint i, except for a strategy (packnet) whose
    checkpoints serve only the tasks of their own stage. Finished episodes are kept in episodes.jsonl, so a repeated
    command runs only the missing ones. Arguments are those of `evaluate_checkpoint`, and
    `episodes_earlier`: the number of episodes, the first ones, of a task that an earlier checkpoint has learned;
    default: `episodes`.
    """
    if episodes_earlier is not None and not 1 <= episodes_earlier <= episodes:
        raise UserError(f"episodes_earlier is {episodes_earlier}, expected 1 to episodes, {episodes}")
    settings = (episodes, sampling, seed, max_steps, assets, starts, environments, episodes_earlier)
    stages, curves = run_specs(run, suite_names, *settings)
    specs = [*_flat(_flat(curves)), *_flat(stages)]  # a curve ends in its stage's checkpoint, whose episodes are filmed
    done, ran = _run(specs, workers, cluster, run, callbacks)
    results = dict(zip(specs, done, strict=True))

    def results_of(specs: list[RolloutSpec]) -> list[RolloutResult]:
        return [results[spec] for spec in specs]

    shared = _settings(specs[0], episodes, starts) | {"assets_content": _assets_content(specs), "ran": ran}
    if episodes_earlier is not None:
        shared["episodes_earlier"] = episodes_earlier
    return write_evaluation(
        run,
        [results_of(specs) for specs in stages],
        shared,
        [[float(np.mean([r.success for r in results_of(specs)])) for specs in curve] for curve in curves]
        if all(curves)
        else None,
    )


def _flat(lists: list[list]) -> list:
    return [item for items in lists for item in items]


def write_evaluation(
    run: Path, results: list[list[RolloutResult]], settings: dict, curves: list[list[float]] | None = None
) -> dict:
    """Write evaluation.json in the run folder and return its content.

    "matrix" is S[i][k] over stages, null above the diagonal; a stage with several tasks has their mean. "metrics" are
    those of the final-success variant, and "intervals_95" their intervals.

    Args:
        run: the run folder.
        results: episodes after each stage.
        settings: further entries.
        curves: for every stage, the success on its own tasks at equal distances while it learned; they permit LIBERO's
            variant, "libero_metrics".
    """
    stages: list[dict[str, Any]] = [
        {"checkpoint_id": load_checkpoint(RunFolder(run).checkpoint(stage)).id, "tasks": _task_summaries(after, run)}
        for stage, after in enumerate(results, 1)
    ]
    S = success_matrix([{(t["suite"], t["task"]): t["success_rate"] for t in stage["tasks"]} for stage in stages])
    evaluation = {
        **settings,
        "stages": stages,
        "matrix": [[None if np.isnan(x) else float(x) for x in row] for row in S],
        "metrics": asdict(final_success_metrics(S)),
        "intervals_95": _intervals(results),
    }
    if curves is not None:
        evaluation |= {"curves": curves, "libero_metrics": asdict(libero_metrics(curves, S))}
    RunFolder(run).write_json("evaluation.json", evaluation, is_evaluation)
    with writing(run / FOLDER):
        write_events(run / FOLDER, "evaluation", success_points(evaluation, RunFolder(run).metrics()))
    return evaluation


def _intervals(results: list[list[RolloutResult]]) -> dict[str, list[float] | None]:
    """Return 95 % intervals of the final-success metrics, for the uncertainty of the number of episodes alone.

    The metrics are weighted sums of success rates. The weight of a rate is the metric of a run in which only this rate
    is 1. A checkpoint's rate on a task counts once, even if it serves several stages.
    """

    def cell(spec: RolloutSpec) -> tuple[Path, tuple[str, int]]:
        return spec.checkpoint, (spec.suite, spec.task)

    trials: dict[tuple[Path, tuple[str, int]], list[bool]] = {}
    for result in dict.fromkeys(_flat(results)):
        trials.setdefault(cell(result.spec), []).append(result.success)
    cells = [dict.fromkeys(cell(r.spec) for r in after) for after in results]
    alone = [
        asdict(final_success_metrics(success_matrix([{x[1]: float(x == one) for x in stage} for stage in cells])))
        for one in trials
    ]
    counts = [(sum(won), len(won)) for won in trials.values()]
    return {
        name: None if alone[0][name] is None else list(sum_interval([m[name] for m in alone], counts))
        for name in ("fwt", "nbt", "auc")
    }


def success_matrix(rates: list[dict[Hashable, float]]) -> np.ndarray:
    """Return S (K, K), NaN above the diagonal, from each stage's {task: success rate}.

    Column k is the mean over the tasks that are new in stage k.
    """
    K = len(rates)
    new = [rate.keys() - (rates[k - 1].keys() if k else set()) for k, rate in enumerate(rates)]
    S = np.full((K, K), np.nan)
    for i in range(K):
        for k in range(i + 1):
            S[i, k] = np.mean([rates[i][task] for task in new[k]])
    return S
