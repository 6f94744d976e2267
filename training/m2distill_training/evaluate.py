"""Success rates: closed-loop episodes from initial states that no demonstration used.

Episodes run in worker processes, each with its own simulator, and depend on nothing but their own job, so the number of
workers does not change a result. They start from suites.HELD_OUT, demonstrations from suites.DEMO_STATES; no checkpoint
is chosen by its success, so no state is used both for choosing and for reporting.
"""

import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.session import PolicySession, normalise
from m2distill_sim.suites import HELD_OUT, find_task, initial_states, suites
from m2distill_sim.video import write_video
from m2distill_training.metrics import final_success_metrics, libero_metrics, sum_interval, wilson_interval
from m2distill_training.run import RunError, RunFolder, append_line, read_json, read_lines, write_lines


@dataclass(frozen=True)
class Job:
    checkpoint: Path
    suite: str
    task: int
    state: int  # number of the initial state
    acting: str  # see inference.ACTING
    seed: int
    max_steps: int
    assets: str | None
    video: Path | None


@dataclass(frozen=True)
class Result:
    job: Job
    success: bool
    steps: int
    held: str


def run_jobs(jobs: list[Job], workers: int, on_result: Callable[[Result], None] = lambda result: None) -> list[Result]:
    """Results in the order of `jobs`; `on_result` is called as each one ends."""
    if workers == 1:
        results = []
        for job in jobs:
            results.append(_run_job(job))
            on_result(results[-1])
        return results
    context = multiprocessing.get_context("spawn")  # a forked GL context is unusable
    with ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_begin_worker) as pool:
        futures = {pool.submit(_run_job, job): i for i, job in enumerate(jobs)}
        results = [None] * len(jobs)
        try:
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                on_result(future.result())
        except BrokenProcessPool:
            raise UserError(f"a process of the {workers} that run episodes ended, perhaps for lack of memory; repeat "
                            "the command with fewer --workers") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def evaluate_checkpoint(checkpoint: Path, suite: str, tasks: list[int], episodes: int, *, acting: str, seed: int = 0,
                        max_steps: int = 600, workers: int = 2, assets: str | None = None, videos: Path | None = None,
                        on_result: Callable[[Result], None] = lambda result: None) -> dict:
    """A JSON-ready summary of `episodes` held-out episodes for each of `tasks`."""
    jobs = make_jobs(checkpoint, suite, tasks, episodes, acting, seed, max_steps, assets, videos)
    results = run_jobs(jobs, workers, on_result)
    return {"checkpoint": str(checkpoint), "checkpoint_id": load_checkpoint(checkpoint).id, "suite": suite,
            "acting": acting, "seed": seed, "max_steps": max_steps, "tasks": _task_summaries(results, videos or Path())}


def make_jobs(checkpoint: Path, suite: str, tasks: list[int], episodes: int, acting: str, seed: int, max_steps: int,
              assets: str | None, videos: Path | None) -> list[Job]:
    """The first `episodes` held-out states of every task; the first of them filmed when `videos` names a folder."""
    if not 1 <= episodes <= len(HELD_OUT):
        raise UserError(f"{episodes} episodes per task asked for, allowed 1 to {len(HELD_OUT)}: "
                        "so many initial states are held out from demonstrations")
    return [Job(checkpoint, suite, task, state, acting, seed, max_steps, assets,
                videos / f"task{task}_state{state}.mp4" if videos is not None and state == HELD_OUT[0] else None)
            for task in tasks for state in HELD_OUT[:episodes]]


def _task_summaries(results: list[Result], base: Path) -> list[dict]:
    """One entry per task, in the order in which the tasks appear; paths of videos relative to `base`."""
    return [_task_summary([r for r in results if r.job.task == task], base)
            for task in dict.fromkeys(r.job.task for r in results)]


def _task_summary(results: list[Result], base: Path) -> dict:
    job, successes = results[0].job, sum(r.success for r in results)
    return {"task": job.task, "instruction": find_task(job.suite, job.task).instruction, "successes": successes,
            "episodes": len(results), "success_rate": successes / len(results),
            "wilson_95": list(wilson_interval(successes, len(results))),
            "runs": [{"state": r.job.state, "success": r.success, "steps": r.steps, "held": r.held,
                      "video": os.path.relpath(r.job.video, base) if r.job.video else None} for r in results]}


def find_tasks(suite: str, instructions: list[str]) -> list[int]:
    """The suite's task index of every instruction; raises UserError for one that the suite does not have."""
    find_task(suite, 0)  # refuses an unknown suite
    index = {normalise(task.instruction): task.index for task in suites()[suite]}
    missing = [text for text in instructions if normalise(text) not in index]
    if missing:
        raise UserError(f"{suite} has no task {missing[0]!r}; choose the suite that the demonstrations are from")
    return [index[normalise(text)] for text in instructions]


def evaluate_run(run: Path, suite: str, episodes: int, *, acting: str, seed: int = 0, max_steps: int = 600,
                 workers: int = 2, assets: str | None = None,
                 on_result: Callable[[Result], None] = lambda result: None) -> dict:
    """Every task learned so far after every step; see `write_evaluation`. Videos show the first held-out state of each
    task after the last step.

    After step i a task is served by the newest checkpoint up to i that knows its instruction: by checkpoint i itself,
    except for a strategy (packnet) whose checkpoints serve the tasks of their own step alone. Finished episodes are
    kept in episodes.jsonl, so a repeated command runs only those that are missing, and those with a video.
    """
    if not (run / "data.json").is_file():
        raise RunError(f"{run} is no run folder; give the --out of m2distill train")
    instructions = [d["instruction"] for d in read_json(run / "data.json")]
    tasks = dict(zip(instructions, find_tasks(suite, instructions), strict=True))
    folders = [RunFolder(run).checkpoint(k) for k in range(len(tasks))]
    checkpoints = {folder: load_checkpoint(folder) for folder in folders if folder.is_dir()}
    if not checkpoints:
        raise RunError(f"{run} holds no finished step yet; train on with --resume")
    known = [{tasks[text] for text in checkpoint.instructions} for checkpoint in checkpoints.values()]
    serving = serving_steps(known)

    def jobs_of(folder: Path, chosen: list[int], filmed: bool = False) -> list[Job]:
        return make_jobs(folder, suite, chosen, episodes, acting, seed, max_steps, assets,
                         run / "videos" if filmed else None)

    steps = [[job for task in tasks.values() if task in served
              for job in jobs_of(folders[served[task]], [task], filmed=i == len(serving) - 1)]
             for i, served in enumerate(serving)]
    curves = [[jobs_of(folder, sorted(served.keys() - (serving[k - 1].keys() if k else set())))
               for folder in RunFolder(run).curve(k)] for k, served in enumerate(serving)]
    unique = {(job.checkpoint, job.task, job.state): job  # a filmed one replaces the same without
              for job in [*_flat(_flat(curves)), *_flat(steps)]}
    done = _run_missing(run, list(unique.values()), workers, on_result)
    results = {key: result for key, result in zip(unique, done, strict=True)}

    def results_of(jobs: list[Job]) -> list[Result]:
        return [results[job.checkpoint, job.task, job.state] for job in jobs]

    settings = {"episodes_per_task": episodes, "acting": acting, "seed": seed, "max_steps": max_steps}
    return write_evaluation(run, suite, [results_of(jobs) for jobs in steps], settings,
                            [[float(np.mean([r.success for r in results_of(jobs)])) for jobs in curve]
                             for curve in curves] if all(curves) else None)


def serving_steps(known: list[set[int]]) -> list[dict[int, int]]:
    """For every step, {task: step whose checkpoint serves it}, from the tasks that each step's checkpoint knows."""
    serving: list[dict[int, int]] = []
    for i, tasks in enumerate(known):
        serving.append((serving[-1] if serving else {}) | dict.fromkeys(tasks, i))
    return serving


def _flat(lists: list[list]) -> list:
    return [item for items in lists for item in items]


def _run_missing(run: Path, jobs: list[Job], workers: int, on_result: Callable[[Result], None]) -> list[Result]:
    """Results in the order of `jobs`: those in episodes.jsonl from there, the others run now and added to it."""
    path = run / "episodes.jsonl"
    ids = {folder: load_checkpoint(folder).id for folder in dict.fromkeys(job.checkpoint for job in jobs)}

    def key(job: Job) -> dict:
        return {"checkpoint_id": ids[job.checkpoint], "suite": job.suite, "task": job.task, "state": job.state,
                "acting": job.acting, "seed": job.seed, "max_steps": job.max_steps, "assets": job.assets}

    def keep(result: Result) -> None:
        append_line(path, {**key(result.job), "success": result.success, "steps": result.steps, "held": result.held})
        on_result(result)

    lines = read_lines(path)
    write_lines(path, lines)  # without a last line cut short
    finished = {json.dumps({name: line[name] for name in key(jobs[0])}): line for line in lines}
    known = {job: finished.get(json.dumps(key(job))) if job.video is None else None for job in jobs}
    results = {job: Result(job, line["success"], line["steps"], line["held"]) for job, line in known.items() if line}
    missing = [job for job in jobs if job not in results]
    results |= {result.job: result for result in run_jobs(missing, workers, keep)} if missing else {}
    return [results[job] for job in jobs]


def write_evaluation(run: Path, suite: str, results: list[list[Result]], settings: dict,
                     curves: list[list[float]] | None = None) -> dict:
    """evaluation.json in the run folder, and its content, from the episodes after each step.

    "matrix" is S[i][k] over steps, null above the diagonal; where a step learns several tasks, their mean. "metrics"
    are the final-success variant's, "intervals_95" theirs. `curves`: for every step, the success on its own tasks at
    equal distances while it learned, from before to after: they alone give LIBERO's variant, "libero_metrics".
    """
    steps = [{"checkpoint_id": load_checkpoint(RunFolder(run).checkpoint(i)).id,
              "tasks": _task_summaries(after, run)} for i, after in enumerate(results)]
    S = success_matrix([{t["task"]: t["success_rate"] for t in step["tasks"]} for step in steps])
    evaluation = {"suite": suite, **settings, "steps": steps,
                  "matrix": [[None if np.isnan(x) else float(x) for x in row] for row in S],
                  "metrics": asdict(final_success_metrics(S)), "intervals_95": _intervals(results)}
    if curves is not None:
        evaluation |= {"curves": curves, "libero_metrics": asdict(libero_metrics(curves, S))}
    RunFolder(run).write_json("evaluation.json", evaluation)
    return evaluation


def _intervals(results: list[list[Result]]) -> dict[str, list[float] | None]:
    """95 % intervals of the final-success metrics: what the number of episodes leaves open, and no more.

    The metrics are weighted sums of success rates, so a rate's weight is the metric of a run in which it alone is 1. A
    checkpoint's rate on a task counts once, however many steps it serves.
    """
    trials: dict[tuple[Path, int], list[bool]] = {}
    for result in dict.fromkeys(_flat(results)):
        trials.setdefault((result.job.checkpoint, result.job.task), []).append(result.success)
    cells = [dict.fromkeys((r.job.checkpoint, r.job.task) for r in after) for after in results]
    alone = [asdict(final_success_metrics(success_matrix([{cell[1]: float(cell == one) for cell in step}
                                                          for step in cells]))) for one in trials]
    counts = [(sum(won), len(won)) for won in trials.values()]
    return {name: None if alone[0][name] is None else list(sum_interval([m[name] for m in alone], counts))
            for name in ("fwt", "nbt", "auc")}


def success_matrix(rates: list[dict[int, float]]) -> np.ndarray:
    """S (K, K), NaN above the diagonal, from each step's {task: success rate}. Column k is the mean over the tasks that
    are new in step k."""
    K = len(rates)
    new = [rate.keys() - (rates[k - 1].keys() if k else set()) for k, rate in enumerate(rates)]
    S = np.full((K, K), np.nan)
    for i in range(K):
        for k in range(i + 1):
            S[i, k] = np.mean([rates[i][task] for task in new[k]])
    return S


def _begin_worker() -> None:
    import torch

    torch.set_num_threads(1)  # one process per core is the parallelism


class _Stage:
    """What a worker keeps between jobs: its simulator and its checkpoint, each made anew only when it must change."""

    env = None
    env_key: tuple | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_path: Path | None = None


def _run_job(job: Job) -> Result:
    os.environ.setdefault("MUJOCO_GL", "egl")
    from m2distill_policy.inference import LoadedPolicy
    from m2distill_sim.assets import find_assets
    from m2distill_sim.libero_env import LiberoEnv
    from m2distill_training.rollout import run_episode

    if _Stage.checkpoint_path != job.checkpoint:
        _Stage.checkpoint, _Stage.checkpoint_path = load_checkpoint(job.checkpoint), job.checkpoint
    checkpoint = _Stage.checkpoint
    cameras = {c.name: (c.height, c.width) for c in checkpoint.spec.cameras}
    key = (job.suite, job.task, job.assets, tuple(cameras.items()))
    if _Stage.env_key != key:
        if _Stage.env is not None:
            _Stage.env.close()
        _Stage.env, _Stage.env_key = LiberoEnv(job.suite, job.task, find_assets(job.assets), cameras), key
    policy = LoadedPolicy(checkpoint, job.acting, seed=job.seed * 1000 + job.state)
    session = PolicySession(checkpoint.spec, policy, checkpoint.instructions)
    episode = run_episode(_Stage.env, session, _Stage.env.instruction, initial_states(job.suite, job.task)[job.state],
                          job.max_steps, record=job.video is not None)
    if job.video is not None:
        job.video.parent.mkdir(parents=True, exist_ok=True)
        write_video(job.video, episode.frames, session.spec.rate_hz)
    return Result(job, episode.success, episode.steps, episode.held)
