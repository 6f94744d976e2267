"""Success rates: what episodes say of a checkpoint, of a task, of a run.

Episodes run in worker processes (episodes.py), each a function of its own job, so neither the number of workers nor an
interruption changes a result: everything in an evaluation but "ran" repeats bit for bit on the same versions.
"""

import os
import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from m2distill_policy.action import DEFAULT_SAMPLING
from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.control.session import normalise
from m2distill_policy.errors import UserError
from m2distill_sim.suites import Task, assets_of, find_task, suites
from m2distill_training.evaluation.metrics import final_success_metrics, libero_metrics, sum_interval, wilson_interval
from m2distill_training.evaluation.rollout_jobs import (
    ProgressCallbacks,
    RolloutResult,
    RolloutSpec,
    is_video,
    make_jobs,
    run_jobs,
    versions,
)
from m2distill_training.runs.provenance import environment
from m2distill_training.runs.run_folder import RunError, RunFolder
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
    """evaluation.json of a run, as far as it is read again."""
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


def evaluate_checkpoint(
    checkpoint: Path,
    tasks: Sequence[Task],
    episodes: int,
    out: Path,
    *,
    sampling: str = DEFAULT_SAMPLING,
    seed: int = 0,
    max_steps: int = 600,
    workers: int = 2,
    assets: str | None = None,
    listener: ProgressCallbacks = ProgressCallbacks(),
) -> dict:
    """`episodes` held-out episodes for each of `tasks`: evaluation.json in `out`, and its content.

    Beside it videos/, of every failure and of each task's first state, and episodes.jsonl, from which a repeated
    command takes the episodes that are finished. Raises UserError.
    """
    if (out / "data.json").is_file():
        raise UserError(f"{out} is a run folder with an evaluation of its own; choose another --out")
    jobs = make_jobs(checkpoint, tasks, episodes, sampling, seed, max_steps, assets, out / "videos")
    known = load_checkpoint(checkpoint)
    strange = {t.instruction for t in tasks} - {t.instruction for t in known_tasks(known.instructions, tasks)}
    if strange:
        raise UserError(
            f"{checkpoint} does not know {min(strange)!r}, only {sorted(known.instructions)}; leave "
            "--tasks out to evaluate what it knows"
        )
    results, ran = _run(jobs, workers, out, listener)
    evaluation = {
        "checkpoint": str(checkpoint),
        "checkpoint_id": known.id,
        **_settings(episodes, sampling, seed, max_steps),
        "tasks": _task_summaries(results, out),
        "ran": ran,
    }
    RunFolder(out).write_json("evaluation.json", evaluation)
    return evaluation


def _settings(episodes: int, sampling: str, seed: int, max_steps: int) -> dict:
    return {
        "episodes_per_task": episodes,
        "sampling": sampling,
        "seed": seed,
        "max_steps": max_steps,
        "versions": versions(),
    }


def _run(
    jobs: list[RolloutSpec], workers: int, folder: Path, listener: ProgressCallbacks
) -> tuple[list[RolloutResult], dict]:
    """The results, and how they were come by: what does not repeat."""
    began, repeated, total = time.monotonic(), [], 0

    def on_begin(episodes: int) -> None:
        nonlocal total
        total = episodes
        listener.begin(episodes)

    def on_repeat(job: RolloutSpec, reason: str) -> None:
        repeated.append({"suite": job.suite, "task": job.task, "state": job.state, "reason": reason})
        listener.repeat(job, reason)

    results = run_jobs(jobs, workers, folder / EPISODES, replace(listener, begin=on_begin, repeat=on_repeat))
    now = environment()
    return results, {
        "workers": workers,
        "episodes": total,
        "seconds": round(time.monotonic() - began, 1),
        "repeated": repeated,
        **{name: now[name] for name in ("started", "source", "python", "system", "cpu", "cores")},
    }


def _task_summaries(results: list[RolloutResult], base: Path) -> list[dict]:
    """One entry per task, in the order in which the tasks appear; paths of videos relative to `base`."""
    tasks: dict[tuple[str, int], list[RolloutResult]] = {}
    for result in results:
        tasks.setdefault((result.job.suite, result.job.task), []).append(result)
    return [_task_summary(of_task, base) for of_task in tasks.values()]


def _task_summary(results: list[RolloutResult], base: Path) -> dict:
    """Failures first: they are what one looks at."""
    job, successes = results[0].job, sum(r.success for r in results)
    taken = [r.steps for r in results if r.success]
    return {
        "suite": job.suite,
        "task": job.task,
        "instruction": find_task(job.suite, job.task).instruction,
        "assets": assets_of(job.suite, job.assets).label,
        "successes": successes,
        "episodes": len(results),
        "success_rate": successes / len(results),
        "wilson_95": list(wilson_interval(successes, len(results))),
        "steps_to_success": {"median": float(np.median(taken)), "longest": max(taken)} if taken else None,
        "runs": [
            {
                "state": r.job.state,
                "success": r.success,
                "steps": r.steps,
                "held": r.held,
                "video": os.path.relpath(r.video, base) if r.video else None,
            }
            for r in sorted(results, key=lambda r: (r.success, r.job.state))
        ],
    }


def find_tasks(suite_names: Sequence[str], instructions: Iterable[str]) -> list[Task]:
    """The task of every instruction, from the first of the suites that has it; raises UserError where none has."""
    candidates = [task for suite in suite_names for task in (find_task(suite, 0), *suites()[suite][1:])]
    found = []
    for text in instructions:
        same = known_tasks([text], candidates)
        if not same:
            raise UserError(
                f"no task of {', '.join(suite_names)} is {text!r}; name the suites that the demonstrations "
                "are from with --suite"
            )
        found.append(same[0])
    return found


def known_tasks(instructions: Iterable[str], tasks: Sequence[Task]) -> list[Task]:
    """Those of `tasks` that one of the instructions names."""
    known = {normalise(text) for text in instructions}
    return [task for task in tasks if normalise(task.instruction) in known]


def evaluate_run(
    run: Path,
    suite_names: Sequence[str],
    episodes: int,
    *,
    sampling: str = DEFAULT_SAMPLING,
    seed: int = 0,
    max_steps: int = 600,
    workers: int = 2,
    assets: str | None = None,
    listener: ProgressCallbacks = ProgressCallbacks(),
) -> dict:
    """Every task learned so far after every stage; see `write_evaluation`. Videos show every failure after the last
    stage, and each task's first state.

    After stage i a task is served by the newest checkpoint up to i that knows its instruction: by checkpoint i itself,
    except for a strategy (packnet) whose checkpoints serve the tasks of their own stage alone. Finished episodes are
    kept in episodes.jsonl, so a repeated command runs only those that are missing.
    """
    if not (run / "data.json").is_file():
        raise RunError(f"{run} is no run folder; give the --out of m2distill train")
    instructions = [d["instruction"] for d in RunFolder(run).data()]
    tasks = dict(zip(instructions, find_tasks(suite_names, instructions), strict=True))
    folders = [RunFolder(run).checkpoint(stage) for stage in range(1, len(tasks) + 1)]
    checkpoints = {folder: load_checkpoint(folder) for folder in folders if folder.is_dir()}
    if not checkpoints:
        raise RunError(f"{run} holds no finished stage yet; repeat its m2distill train command")
    known = [{tasks[text] for text in checkpoint.instructions} for checkpoint in checkpoints.values()]
    serving = serving_stages(known)

    def jobs_of(folder: Path, chosen: list[Task], filmed: bool = False) -> list[RolloutSpec]:
        return make_jobs(
            folder, chosen, episodes, sampling, seed, max_steps, assets, run / "videos" if filmed else None
        )

    stages = [
        [
            job
            for task in tasks.values()
            if task in served
            for job in jobs_of(folders[served[task]], [task], filmed=i == len(serving) - 1)
        ]
        for i, served in enumerate(serving)
    ]
    curves = [
        [
            jobs_of(folder, [task for task in served if not k or task not in serving[k - 1]])
            for folder in RunFolder(run).curve(k + 1)
        ]
        for k, served in enumerate(serving)
    ]
    jobs = [*_flat(_flat(curves)), *_flat(stages)]  # a curve ends in its stage's checkpoint, whose episodes are filmed
    done, ran = _run(jobs, workers, run, listener)
    results = dict(zip(jobs, done, strict=True))

    def results_of(jobs: list[RolloutSpec]) -> list[RolloutResult]:
        return [results[job] for job in jobs]

    settings = _settings(episodes, sampling, seed, max_steps) | {"ran": ran}
    return write_evaluation(
        run,
        [results_of(jobs) for jobs in stages],
        settings,
        [[float(np.mean([r.success for r in results_of(jobs)])) for jobs in curve] for curve in curves]
        if all(curves)
        else None,
    )


def serving_stages(known: list[set[Task]]) -> list[dict[Task, int]]:
    """For every stage, {task: index of the stage whose checkpoint serves it}, from the tasks each checkpoint knows."""
    serving: list[dict[Task, int]] = []
    for i, tasks in enumerate(known):
        serving.append((serving[-1] if serving else {}) | dict.fromkeys(tasks, i))
    return serving


def _flat(lists: list[list]) -> list:
    return [item for items in lists for item in items]


def write_evaluation(
    run: Path, results: list[list[RolloutResult]], settings: dict, curves: list[list[float]] | None = None
) -> dict:
    """evaluation.json in the run folder, and its content, from the episodes after each stage.

    "matrix" is S[i][k] over stages, null above the diagonal; where a stage learns several tasks, their mean. "metrics"
    are the final-success variant's, "intervals_95" theirs. `curves`: for every stage, the success on its own tasks at
    equal distances while it learned, from before to after: they alone give LIBERO's variant, "libero_metrics".
    """
    stages: list[dict[str, Any]] = [
        {"checkpoint_id": load_checkpoint(RunFolder(run).checkpoint(stage)).id, "tasks": _task_summaries(after, run)}
        for stage, after in enumerate(results, 1)
    ]
    S = success_matrix([{t["instruction"]: t["success_rate"] for t in stage["tasks"]} for stage in stages])
    evaluation = {
        **settings,
        "stages": stages,
        "matrix": [[None if np.isnan(x) else float(x) for x in row] for row in S],
        "metrics": asdict(final_success_metrics(S)),
        "intervals_95": _intervals(results),
    }
    if curves is not None:
        evaluation |= {"curves": curves, "libero_metrics": asdict(libero_metrics(curves, S))}
    RunFolder(run).write_json("evaluation.json", evaluation)
    return evaluation


def _intervals(results: list[list[RolloutResult]]) -> dict[str, list[float] | None]:
    """95 % intervals of the final-success metrics: what the number of episodes leaves open, and no more.

    The metrics are weighted sums of success rates, so a rate's weight is the metric of a run in which it alone is 1. A
    checkpoint's rate on a task counts once, however many stages it serves.
    """

    def cell(job: RolloutSpec) -> tuple[Path, tuple[str, int]]:
        return job.checkpoint, (job.suite, job.task)

    trials: dict[tuple[Path, tuple[str, int]], list[bool]] = {}
    for result in dict.fromkeys(_flat(results)):
        trials.setdefault(cell(result.job), []).append(result.success)
    cells = [dict.fromkeys(cell(r.job) for r in after) for after in results]
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
