"""Benchmark `bench sim`: control steps per second with two images, against LIBERO's wrapper and by two processes."""

import multiprocessing
from multiprocessing.connection import Connection

import numpy as np

from m2distill_policy.cameras import square_sizes
from m2distill_policy.errors import require_at_least
from m2distill_policy.suites import DEFAULT_SUITE
from m2distill_sim.suites import Task, assets_of, find_task, initial_states
from m2distill_training.bench.measure import Times, alternate, judged, machine, show

COLUMNS = ("name", "assets", "ours_steps_s", "plain_steps_s", "ratio", "bar", "holds")
AIM_STEPS_S, AIM_WORKERS = 20, 1.8


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
    shared = {"suite": suite, "task": task, "size_px": size_px, "steps": steps, **machine()}
    show([row | shared for row in rows], COLUMNS, json)


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
