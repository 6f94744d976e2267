"""Benchmark `bench sim`: control steps per second with two images, against LIBERO's wrapper and by two processes.

The last row is the CPU time of evaluated episodes: several simulators that share forward passes, and one alone.
"""

import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection

import numpy as np

from m2distill_policy.action import DEFAULT_SAMPLING
from m2distill_policy.bringup.system import STARTER_CHECKPOINT
from m2distill_policy.cameras import square_sizes
from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import require_at_least
from m2distill_policy.suites import DEFAULT_SUITE
from m2distill_sim.suites import Task, assets_of, find_task, initial_states
from m2distill_training.bench.measure import Times, alternate, judged, machine, progress, show
from m2distill_training.evaluation.rollout_jobs import one_thread
from m2distill_training.evaluation.rollout_specs import ENVIRONMENTS, make_specs
from m2distill_training.evaluation.run_specs import find_tasks

COLUMNS = ("name", "assets", "ours_steps_s", "plain_steps_s", "ours_cpu_s", "plain_cpu_s", "ratio", "bar", "holds")
EPISODES, MAX_STEPS = 8, 300  # of the starter, by which an evaluation is timed
AIM_STEPS_S, AIM_WORKERS, AIM_CPU = 20, 1.8, 0.6


def bench_sim(
    json: bool = False,
    quick: bool = False,
    repeats: int = 5,
    steps: int = 40,
    size_px: int = 128,
    suite: str = DEFAULT_SUITE,
    task: int = 0,
    assets: tuple[str, ...] = ("builtin",),
) -> None:
    """Run the benchmark and print its rows; `m2distill bench sim --help` describes it. Raises UserError."""
    require_at_least(1, repeats=repeats, steps=steps)
    if quick:
        steps, size_px = 3, 32
    chosen = find_task(suite, task)
    rows = []
    for which in assets:
        times, source = wrapper_and_ours(chosen, which, steps, size_px, repeats), assets_of(suite, which)
        rows.append(
            {
                "name": "one environment, and LIBERO's wrapper",
                "assets": source.label,
                **_rates(times, steps, steps),
                "ratio": round(times.plain / times.ours, 2),
                **(_aimed(steps / times.ours) if source.is_builtin else {}),
            }
        )
    times = one_and_two(chosen, assets[0], steps, size_px, repeats)
    rows.append(
        {
            "name": "two processes, and one",
            "assets": assets_of(suite, assets[0]).label,
            **_rates(times, 2 * steps, steps),
            **judged(2 * times.plain / times.ours, ">=", AIM_WORKERS),
        }
    )
    rows.append(episode_row(assets[0], repeats, 2 if quick else EPISODES, steps if quick else MAX_STEPS))
    shared = {"suite": suite, "task": task, "size_px": size_px, "steps": steps, **machine()}
    show([row | shared for row in rows], COLUMNS, json)


def episode_row(assets: str, repeats: int, episodes: int, max_steps: int) -> dict:
    """Return the row of CPU time per evaluated episode of the starter: ENVIRONMENTS simulators, and one alone."""
    from m2distill_training.evaluation.episode_runner import run_episodes  # a renderer, see above

    tasks = find_tasks([DEFAULT_SUITE], sorted(load_checkpoint(STARTER_CHECKPOINT).instructions))[:1]
    seconds: dict[int, list[float]] = {ENVIRONMENTS: [], 1: []}
    with one_thread():
        for i in range(repeats + 1):  # the first warms up
            for environments, kept in seconds.items():
                settings = (episodes, DEFAULT_SAMPLING, 0, max_steps, assets, None, "choice", environments)
                begun = time.process_time()
                run_episodes(make_specs(STARTER_CHECKPOINT, tasks, *settings))
                kept.append((time.process_time() - begun) / episodes)
            progress(f"evaluated episodes: {i}/{repeats}")
    ours, plain = (statistics.median(each[1:]) for each in seconds.values())
    return {
        "name": f"CPU time of an evaluated episode, {ENVIRONMENTS} environments and 1",
        "assets": assets_of(DEFAULT_SUITE, assets).label,
        "episodes": episodes,
        "ours_cpu_s": round(ours, 3),
        "plain_cpu_s": round(plain, 3),
        "ours_each_cpu_s": [round(s, 3) for s in seconds[ENVIRONMENTS][1:]],
        "plain_each_cpu_s": [round(s, 3) for s in seconds[1][1:]],
        **judged(ours / plain, "<=", AIM_CPU),
    }


def _aimed(steps_s: float) -> dict:
    return {"bar": f">= {AIM_STEPS_S} steps/s", "holds": steps_s >= AIM_STEPS_S}


def _rates(times: Times, ours: int, plain: int) -> dict:
    """Return the steps per second of blocks of that many steps."""
    return {
        "ours_steps_s": round(ours / times.ours, 1),
        "plain_steps_s": round(plain / times.plain, 1),
        "ours_each": [round(ours / s, 1) for s in times.ours_s],
        "plain_each": [round(plain / s, 1) for s in times.plain_s],
    }


def wrapper_and_ours(task: Task, assets: str, steps: int, size_px: int, repeats: int) -> Times:
    """Time blocks of the same actions from the same state.

    Resets are not counted: ours come with the block, so each block continues where the previous one ended.
    """
    from m2distill_sim.env_factory import make_env  # needs a renderer: not asked for by the other benchmarks
    from m2distill_sim.libero_env import wrapped_env

    source = assets_of(task.suite, assets)
    state = initial_states(task.suite, task.index)[0]
    wrapper = wrapped_env(task, source, size_px)
    wrapper.reset()
    wrapper.set_init_state(state)
    try:
        with make_env(task.suite, task.index, source, square_sizes(size_px)) as env:
            env.reset(state)
            return alternate(
                lambda: _act(env, steps),
                lambda: _act(wrapper, steps),
                repeats,
                f"{source.label}, ours and LIBERO's wrapper",
            )
    finally:
        wrapper.close()


def _act(env, steps: int) -> None:
    """Move the hand in a circle of some centimetres, in ours and in LIBERO's environment alike."""
    for angle in np.linspace(0, 2 * np.pi, steps, endpoint=False):
        env.step(np.array([0.3 * np.cos(angle), 0.3 * np.sin(angle), 0, 0, 0, 0, -1.0]))


def one_and_two(task: Task, assets: str, steps: int, size_px: int, repeats: int) -> Times:
    """Time a block by two processes at once (ours, twice the steps) and the same block by one of them (plain)."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for _ in range(2):
            pipe, its_end = context.Pipe()
            process = context.Process(
                target=_serve, args=(its_end, task.suite, task.index, assets, size_px), daemon=True
            )
            process.start()
            its_end.close()
            pipes.append(pipe)
            processes.append(process)

        def block(used: list[Connection]) -> None:
            for pipe in used:
                pipe.send(steps)
            for pipe in used:
                pipe.recv()

        return alternate(lambda: block(pipes), lambda: block(pipes[:1]), repeats, "two processes and one")
    finally:
        for process in processes:
            process.kill()
            process.join()


def _serve(pipe: Connection, suite: str, task: int, assets: str, size_px: int) -> None:
    from m2distill_sim.env_factory import make_env

    with make_env(suite, task, assets_of(suite, assets), square_sizes(size_px)) as env:
        env.reset(initial_states(suite, task)[0])
        while True:
            _act(env, pipe.recv())
            pipe.send(None)
