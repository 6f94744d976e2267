"""Cost on an idle machine of OpenMP threads that wait as m2distill lets them (utils/openmp.py), over OpenMP's default.

    python -m m2distill_training.bench.waiting --json > waiting.json

OpenMP reads its variables when it is loaded, so each measurement is a process of its own; the two kinds take turns.
Measured are gradient steps of M2Distill with the preset `small` and two threads, and steps of the `libero` policy at
20 Hz as in a node, with one and with two threads. Needs no data and about ten minutes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from m2distill_policy.utils.openmp import wait_settings

WAITING = ("ours", "default")
BAR = 1.2  # of ours over the default
STEPS, WARM_UP = 80, 10
COLUMNS = ("name", "ours_ms", "default_ms", "ratio", "bar", "holds")
KINDS = {"training": (2,), "acting": (1, 2)}  # numbers of threads


def training(threads: int, steps: int) -> float:
    """Return the median milliseconds of a gradient step."""
    import torch

    from m2distill_training.bench.steps import Steps
    from m2distill_training.bench.train import demo_subset
    from m2distill_training.presets import small
    from m2distill_training.utils.allocator import freed_memory_kept

    torch.set_num_threads(threads)
    config = small().with_strategy("m2distill")
    with freed_memory_kept():
        stage = Steps(config, demo_subset(config, 1), [demo_subset(config, 0)])
        seconds = []
        for _ in range(WARM_UP + steps):
            begun = time.perf_counter()
            stage.step()
            seconds.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(seconds[WARM_UP:])


def acting(threads: int, steps: int) -> float:
    """Return the median milliseconds of a policy's step, once per period."""
    import torch

    from m2distill_policy.checkpoint import Checkpoint
    from m2distill_policy.models import Policy, libero
    from m2distill_policy.spec import libero_spec
    from m2distill_training.bench.acting import acting as act
    from m2distill_training.bench.node import paced
    from m2distill_training.bench.synthetic import TEXT_WIDTH

    torch.set_num_threads(threads)
    spec = libero_spec(text_encoder="none", text_width=TEXT_WIDTH)
    call = act(Checkpoint(spec, libero(), Policy(libero(), spec).state_dict(), {}))
    return 1e3 * statistics.median(paced(call, spec.rate_hz, steps))


def measure(kind: str, threads: int, waiting: str, steps: int) -> float:
    """Run one measurement in a new process and return its milliseconds."""
    options = ["--only", kind, "--threads", str(threads), "--steps", str(steps)]
    command = [sys.executable, "-m", "m2distill_training.bench.waiting", *options]
    environment = {name: value for name, value in os.environ.items() if name not in wait_settings({})}
    environment |= {"OMP_NUM_THREADS": str(threads)} | (wait_settings({}) if waiting == "ours" else {})
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


def compare(kind: str, threads: int, repeats: int, steps: int) -> dict:
    """Return the row of one kind of work."""
    from m2distill_training.bench.measure import judged, progress

    each: dict[str, list[float]] = {waiting: [] for waiting in WAITING}
    for i in range(repeats):
        for waiting in WAITING:
            each[waiting].append(round(measure(kind, threads, waiting, steps), 2))
        progress(f"{kind}, {threads} threads: {i + 1}/{repeats}, {each['ours'][-1]} ms against {each['default'][-1]}")
    ours, default = (statistics.median(each[waiting]) for waiting in WAITING)
    return {
        "name": f"{kind} with {threads} threads, waiting as set over OpenMP's default",
        "ours_ms": ours,
        "default_ms": default,
        **{f"{waiting}_each_ms": values for waiting, values in each.items()},
        **judged(ours / default, "<=", BAR),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what waiting threads of OpenMP cost on an idle machine.")
    parser.add_argument("--json", action="store_true", help="all fields as JSON instead of a table")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each kind; the medians are compared")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each measurement")
    parser.add_argument("--only", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print({"training": training, "acting": acting}[options.only](options.threads, options.steps))
        return
    from m2distill_training.bench.measure import machine, show

    rows = [
        compare(kind, threads, options.repeats, options.steps) for kind, numbers in KINDS.items() for threads in numbers
    ]
    show([row | machine() for row in rows], COLUMNS, options.json)


if __name__ == "__main__":
    main()
