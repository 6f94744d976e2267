"""Benchmark `bench experts`: success of the scripted experts from LIBERO's initial states, without images."""

import json as json_module
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from m2distill_policy.errors import UserError, require_at_least
from m2distill_sim import experts
from m2distill_sim.collect import expert_digest
from m2distill_sim.suites import DEMO_STATES, HELD_OUT, assets_of, find_task, initial_states, suites
from m2distill_training.bench.measure import judged, machine, progress, show
from m2distill_training.evaluation.metrics import wilson_interval
from m2distill_training.execution.executor import Executor, run_jobs
from m2distill_training.execution.jobs import Job, Outcome
from m2distill_training.execution.local import LocalBackend

COLUMNS = ("assets", "suite", "task", "successes", "episodes", "wilson_95", "steps", "bar", "holds")
STATES = len(DEMO_STATES) + len(HELD_OUT)
AT_ONCE = 10  # episodes of one task in a row, after which they are written down
LEAST_MEAN, LEAST_TASK = 0.95, 0.80  # what success is held to: in the mean over tasks, and of every task


@dataclass(frozen=True)
class ExpertRun:
    """Settings that several episodes share."""

    assets: str  # AssetSource.identity
    suite: str
    task: int
    disturbed: bool
    seed: int
    source: str  # of the experts


def bench_experts(
    json: bool = False,
    suite: tuple[str, ...] = experts.SUITES,
    tasks: tuple[int, ...] = (),
    states: int = STATES,
    assets: tuple[str, ...] = ("builtin",),
    disturbed: bool = False,
    seed: int = 0,
    workers: int = 1,
    log: Path | None = None,
) -> None:
    """Run the benchmark and print its rows; `m2distill bench experts --help` describes it. Raises UserError."""
    require_at_least(1, states=states, workers=workers)
    require_at_least(0, seed=seed)
    if states > STATES:
        raise UserError(f"states is {states}, allowed 1 to {STATES}")
    for name in suite:
        experts.check_expert(name)
    runs = {}
    for which in assets:
        for name in suite:
            source = assets_of(name, which)
            identity = source.identity()
            for task in tasks or range(len(suites()[name])):
                find_task(name, task)
                runs[ExpertRun(identity, name, task, disturbed, seed, expert_digest())] = source
    finished = _read(log, runs)
    jobs = [
        Job(f"{run} from {begin}", _episodes, (run, runs[run], left))
        for run in runs
        for begin in range(0, states, AT_ONCE)
        if (left := [state for state in range(begin, min(begin + AT_ONCE, states)) if state not in finished[run]])
    ]

    def keep(outcome: Outcome) -> None:
        run = outcome.job.arguments[0]
        finished[run] |= outcome.value
        _write(log, run, outcome.value)
        row = _row(run, finished[run])
        progress(
            f"{run.assets} {run.suite} {run.task}: {row['successes']} of {row['episodes']} so far, failed "
            f"from states {row['failed_states']}"
        )

    with Executor(LocalBackend(workers)) as executor:
        run_jobs(executor, jobs, keep)
    rows = [_row(run, {state: finished[run][state] for state in range(states)}) for run in runs]
    rows += [
        _mean(label, [row for row in rows if row["assets"] == label])
        for label in dict.fromkeys(run.assets for run in runs)
    ]
    shared = {"disturbed": disturbed, "seed": seed, "experts": expert_digest(), **machine()}
    show([row | shared for row in rows], COLUMNS, json)


def _episodes(run: ExpertRun, assets, states: list[int]) -> dict[int, tuple[bool, int]]:
    """Return {initial state: (success, steps)}; runs in a worker process."""
    from m2distill_sim.experts.noise import Disturbance
    from m2distill_sim.libero_env import LiberoEnv

    results = {}
    with LiberoEnv(run.suite, run.task, assets) as env:
        starts = initial_states(run.suite, run.task)
        for state in states:
            rng = np.random.default_rng([run.seed, run.task, state])
            env.reset(starts[state])
            expert = experts.make_expert(env, rng)
            disturbance = Disturbance(rng) if run.disturbed else None
            steps = 0
            while not expert.done and steps < expert.max_steps:
                action = expert.act(env)
                env.step(action + disturbance.step(expert.phase, action) if disturbance else action, render=False)
                steps += 1
            results[state] = (expert.done and env.success(), steps)
    return results


def _row(run: ExpertRun, results: dict[int, tuple[bool, int]]) -> dict:
    successes = [steps for success, steps in results.values() if success]
    rate = len(successes) / len(results)
    return {
        "assets": run.assets,
        "suite": run.suite,
        "task": run.task,
        "name": find_task(run.suite, run.task).name,
        "successes": len(successes),
        "episodes": len(results),
        "wilson_95": _interval(len(successes), len(results)),
        "steps": round(float(np.mean(successes))) if successes else None,
        "failed_states": [state for state, (success, _) in results.items() if not success],
        **judged(rate, ">=", LEAST_TASK),
    }


def _mean(assets: str, rows: list[dict]) -> dict:
    successes, episodes = (sum(row[name] for row in rows) for name in ("successes", "episodes"))
    return {
        "assets": assets,
        "suite": "mean over tasks",
        "successes": successes,
        "episodes": episodes,
        "wilson_95": _interval(successes, episodes),
        **judged(successes / episodes, ">=", LEAST_MEAN),
    }


def _interval(successes: int, episodes: int) -> list[float]:
    return [round(end, 3) for end in wilson_interval(successes, episodes)]


def _read(log: Path | None, runs) -> dict[ExpertRun, dict[int, tuple[bool, int]]]:
    """Return the finished episodes of these runs in the log, without an incomplete last line."""
    finished: dict[ExpertRun, dict[int, tuple[bool, int]]] = {run: {} for run in runs}
    if log is None or not log.exists():
        return finished
    for line in log.read_text().splitlines():
        try:
            entry = json_module.loads(line)
            state, result = entry.pop("state"), (entry.pop("success"), entry.pop("steps"))
            run = ExpertRun(**entry)
        except (ValueError, TypeError, KeyError):
            continue
        if run in finished:
            finished[run][state] = result
    return finished


def _write(log: Path | None, run: ExpertRun, results: dict[int, tuple[bool, int]]) -> None:
    if log is None:
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        for state, (success, steps) in results.items():
            entry = asdict(run) | {"state": state, "success": bool(success), "steps": steps}
            file.write(json_module.dumps(entry) + "\n")
