"""Cost of `OMP_WAIT_POLICY=passive` on an idle machine, with and without it in turns.

    python -m m2distill_training.bench.waiting --json > waiting.json

OpenMP reads the variable when it is loaded, so each measurement is a process of its own. Two kinds of work are
measured: gradient steps of M2Distill with the preset `small` and two threads, and steps of the `libero` policy at 20 Hz
as in a node, with one and with two threads. Needs no data and about three minutes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

POLICIES = ("passive", "active")
BAR = 1.1  # passive over active: at most a tenth slower
STEPS, WARM_UP, PERIODS = 60, 20, 100
COLUMNS = ("name", "passive_ms", "active_ms", "ratio", "bar", "holds")
KINDS = {"training": (2,), "acting": (1, 2)}  # numbers of threads


def training(threads: int) -> float:
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
        for _ in range(WARM_UP + STEPS):
            begun = time.perf_counter()
            stage.step()
            seconds.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(seconds[WARM_UP:])


def acting(threads: int) -> float:
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
    return 1e3 * statistics.median(paced(call, spec.rate_hz, PERIODS))


def measure(kind: str, threads: int, policy: str) -> float:
    """Run one measurement in a new process and return its milliseconds."""
    command = [sys.executable, "-m", "m2distill_training.bench.waiting", "--only", kind, "--threads", str(threads)]
    environment = os.environ | {"OMP_WAIT_POLICY": policy, "OMP_NUM_THREADS": str(threads)}
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


def compare(kind: str, threads: int, repeats: int) -> dict:
    """Return the row of one kind of work."""
    from m2distill_training.bench.measure import judged, progress

    each: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    for i in range(repeats):
        for policy in POLICIES:
            each[policy].append(round(measure(kind, threads, policy), 2))
        progress(f"{kind}, {threads} threads: {i + 1}/{repeats}, {each['passive'][-1]} ms against {each['active'][-1]}")
    passive, active = (statistics.median(each[policy]) for policy in POLICIES)
    return {
        "name": f"{kind} with OMP_WAIT_POLICY passive over active, {threads} threads",
        "passive_ms": passive,
        "active_ms": active,
        **{f"{policy}_each_ms": values for policy, values in each.items()},
        **judged(passive / active, "<=", BAR),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what OMP_WAIT_POLICY=passive costs on an idle machine.")
    parser.add_argument("--json", action="store_true", help="all fields as JSON instead of a table")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each kind; the medians are compared")
    parser.add_argument("--only", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print({"training": training, "acting": acting}[options.only](options.threads))
        return
    from m2distill_training.bench.measure import machine, show

    rows = [compare(kind, threads, options.repeats) for kind, numbers in KINDS.items() for threads in numbers]
    show([json.loads(json.dumps(row | machine())) for row in rows], COLUMNS, options.json)


if __name__ == "__main__":
    main()
