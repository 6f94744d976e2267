"""Benchmark `bench node`: latency of a policy node's commands over ROS 2, and of the policy alone."""

import json as json_module
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch

from m2distill_policy.bringup.domain import own_domain
from m2distill_policy.bringup.system import NodeDescription, NodeProcesses
from m2distill_policy.checkpoint import Checkpoint, save_checkpoint
from m2distill_policy.errors import UserError, require_at_least
from m2distill_policy.models import Policy, libero
from m2distill_policy.spec import libero_spec
from m2distill_training.bench.acting import acting, against_libero
from m2distill_training.bench.measure import against, machine, progress, show
from m2distill_training.bench.synthetic import TEXT_WIDTH, text

COLUMNS = ("name", "value", "unit", "bar", "holds")
INSTRUCTION = "bench"
THREADS = 1  # of torch; the node's default


def bench_node(json: bool = False, quick: bool = False, seconds: float = 60, repeats: int = 100) -> None:
    """Run the benchmark and print its rows; `m2distill bench node --help` describes it. Raises UserError."""
    require_at_least(1, seconds=seconds, repeats=repeats)
    if quick:
        seconds, repeats = min(seconds, 3), min(repeats, 10)
    torch.set_num_threads(THREADS)
    spec = libero_spec(text_encoder="none", text_width=TEXT_WIDTH)
    rows = against_libero(spec, Path(os.environ["LIBERO_SOURCE"]), repeats) if "LIBERO_SOURCE" in os.environ else []
    if not rows:
        progress("LIBERO_SOURCE names no clone of LIBERO: acting is not compared with get_action")
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "first"), Path(folder, "second")
        for seed, path in enumerate((first, second)):
            torch.manual_seed(seed)
            state = Policy(libero(), spec).state_dict()
            save_checkpoint(path, Checkpoint(spec, libero(), state, {INSTRUCTION: text(seed)}))
        act_s = paced(acting(Checkpoint(spec, libero(), state, {})), spec.rate_hz, repeats)
        measured = over_ros(first, second, seconds, Path(folder, "log"))
        act_s += paced(acting(Checkpoint(spec, libero(), state, {})), spec.rate_hz, repeats)
    rows += judge(measured, 1e3 * float(np.median(act_s)))
    here = machine()
    show([row | here for row in rows], COLUMNS, json)


def judge(measured: dict, act_ms: float) -> list[dict]:
    def row(name: str, value: float, unit: str, bar: float, **more) -> dict:
        return {"name": name, "value": round(value, 2), "unit": unit, **against(value, "<=", bar), **more}

    return [
        row(
            "image's stamp to command, median",
            measured["median_ms"],
            "ms",
            round(act_ms + 3, 2),
            act_ms=round(act_ms, 2),
            periods=measured["periods"],
        ),
        row("image's stamp to command, 99th percentile", measured["p99_ms"], "ms", 50, max_ms=measured["max_ms"]),
        row("periods without a command", measured["missed"], "periods", 0, periods=measured["periods"]),
        row("start of the process to active", measured["start_s"], "s", 12),
        row("resident memory", measured["resident_mb"], "MB", 900),
        row(
            "longest gap while a checkpoint is swapped",
            measured["gap_periods"],
            "periods",
            2,
            swap_s=measured["swap_s"],
        ),
    ]


def over_ros(first: Path, second: Path, seconds: float, log_dir: Path) -> dict:
    """Return the measurements of the probe and of the system for a node that swaps `first` for `second`."""
    node = NodeDescription(
        "m2distill_policy",
        "policy_node",
        "policy",
        "",
        {"checkpoint": str(first), "arm": "libero_sim", "autostart": True, "torch_threads": THREADS},
    )
    command = [
        sys.executable,
        "-m",
        "m2distill_training.bench.ros.latency_probe",
        "--instruction",
        INSTRUCTION,
        "--seconds",
        str(seconds),
        "--swap",
        str(second),
    ]
    with own_domain() as domain:
        nodes = NodeProcesses([node], log_dir, domain)
        with subprocess.Popen(command, env=nodes.environment, stdout=subprocess.PIPE, text=True) as probe:
            assert probe.stdout is not None  # a pipe
            try:
                if probe.stdout.readline() != "ready\n":
                    raise UserError("bench node needs ROS 2 and the built messages, as `make setup` installs them")
                begun_s = time.time()
                with nodes:
                    progress(f"the node starts; commands are timed for {seconds:.0f} s")
                    said = probe.stdout.readline()
                    nodes.check()
                    if not said:
                        raise UserError("the probe stopped; see its last line above")
                    resident = psutil.Process(nodes.pids["policy"]).memory_info().rss
            finally:
                probe.kill()
    measured = json_module.loads(said)
    return {**measured, "start_s": measured["active_s"] - begun_s, "resident_mb": resident / 2**20}


def paced(call: Callable[[], object], rate_hz: float, repeats: int) -> list[float]:
    """Return the seconds of each call, one per period as in a control loop.

    A processor that slept in between is slower. Calls for a full history come first.
    """
    times = []
    for i in range(-10, repeats):
        begun = time.perf_counter()
        call()
        took = time.perf_counter() - begun
        if i >= 0:
            times.append(took)
        time.sleep(max(0.0, 1 / rate_hz - took))
    return times
