"""Benchmark `bench train`: time of gradient steps, losses in bfloat16, and acting against LIBERO's code."""

import dataclasses
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from m2distill_policy.errors import require_at_least
from m2distill_policy.models.batch import to_model_input
from m2distill_policy.spec import libero_spec
from m2distill_training.bench.acting import against_libero, fastest
from m2distill_training.bench.measure import InOwnProcess, Times, against, alternate, judged, machine, progress, show
from m2distill_training.bench.plain import PlainTrainer
from m2distill_training.bench.steps import Steps, with_batch
from m2distill_training.bench.synthetic import TEXT_WIDTH, memory_store, text
from m2distill_training.config import PRECISIONS, TrainConfig
from m2distill_training.data.windows import DemoSubset, Windows
from m2distill_training.presets import libero, small
from m2distill_training.utils.allocator import freed_memory_kept

COLUMNS = ("name", "batch", "ours_ms", "plain_ms", "value", "bar", "holds")
DEMO_STEPS = 60
PRECISION_STEPS, BLOCK = 200, 20
SPEED_KEPT = 0.4  # bar of a step of `small` beside a busy core
ACTING_REPEATS = 100
BUSY = "while True: pass"


@freed_memory_kept()  # as the trainer does
def bench_train(json: bool = False, quick: bool = False, repeats: int = 3) -> None:
    """Run the benchmark and print its rows; `m2distill bench train --help` describes it. Raises UserError."""
    require_at_least(1, repeats=repeats)
    config = dataclasses.replace(libero(), image_px=16, history=2) if quick else libero()
    batches = (2, 4) if quick else (8, 32)
    rows = []
    for batch in batches:
        times = plain_and_ours(config, batch, repeats)
        rows.append(
            {
                "name": "speed-up of a step over the plain path",
                "batch": batch,
                **times.in_ms(),
                **judged(times.plain / times.ours, ">=", 3),
            }
        )
    for on in ("both", "replay"):
        distilling = config.with_strategy("m2distill", on=on)
        for batch in batches:
            times = er_and_m2distill(distilling, batch, repeats)
            rows.append(
                {
                    "name": f"cost of M2Distill's step (ours) over ER's (plain), on {on}",
                    "batch": batch,
                    **times.in_ms(),
                    **judged(times.ours / times.plain, "<=", 1.35),
                }
            )
    shared = {"preset": config.preset, "image_px": config.image_px, "history": config.history}
    rows = [row | shared for row in rows]
    rows += acting_rows(10 if quick else ACTING_REPEATS)
    learned = dataclasses.replace(small(), image_px=16, history=2) if quick else small()
    rows += small_step(learned, repeats, BLOCK // 4 if quick else BLOCK)
    rows += [
        precision_gap(learned, strategy, 2 * BLOCK if quick else PRECISION_STEPS)
        for strategy in ("finetune", "m2distill")
    ]
    show([{"value": row.get("ratio")} | row | machine() for row in rows], COLUMNS, json)


def small_step(config: TrainConfig, repeats: int, steps: int) -> list[dict]:
    """Return the core-seconds of a step of M2Distill, and the share of its speed beside a busy core.

    The teacher's tokens of all windows are known after the warm-up, as in most of a stage.
    """
    stage = Steps(config.with_strategy("m2distill"), demo_subset(config, 1), [demo_subset(config, 0)])
    cores: list[float] = []
    idle: list[float] = []
    busy: list[float] = []
    for i in range(repeats + 1):
        cores_s, idle_s = _block(stage, steps)
        with subprocess.Popen([sys.executable, "-c", BUSY]) as program:
            try:
                _, busy_s = _block(stage, steps)
            finally:
                program.kill()
        if i > 0:  # the first is the warm-up
            cores, idle, busy = [*cores, cores_s], [*idle, idle_s], [*busy, busy_s]
        progress(f"{config.preset}: {cores_s:.3f} core-seconds, {idle_s:.3f} s, beside a busy core {busy_s:.3f} s")
    value, kept = statistics.median(cores), statistics.median(idle) / statistics.median(busy)
    shared = {"preset": config.preset, "batch": config.optim.batch_size, "steps": steps}
    return [
        {
            "name": "core-seconds of a step of M2Distill",
            "value": round(value, 3),
            "each": [round(x, 3) for x in cores],
            **shared,
        },
        {
            "name": "speed of M2Distill beside a busy core over its speed alone",
            "value": round(kept, 2),
            **against(kept, ">=", SPEED_KEPT),
            "alone_each_ms": [round(1e3 * x, 1) for x in idle],
            "beside_each_ms": [round(1e3 * x, 1) for x in busy],
            **shared,
        },
    ]


def _block(stage: Steps, steps: int) -> tuple[float, float]:
    """Make some gradient steps; return the seconds of one, on all cores together and of the clock."""
    cores, begun = time.process_time(), time.perf_counter()
    for _ in range(steps):
        stage.step()
    return (time.process_time() - cores) / steps, (time.perf_counter() - begun) / steps


def acting_rows(repeats: int) -> list[dict]:
    """Return how long one step of a policy takes over LIBERO's get_action, on one thread; [] without LIBERO_SOURCE."""
    if "LIBERO_SOURCE" not in os.environ:
        progress("LIBERO_SOURCE names no clone of LIBERO: acting is not compared with get_action")
        return []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        spec = libero_spec(text_encoder="none", text_width=TEXT_WIDTH)
        return fastest(against_libero(spec, Path(os.environ["LIBERO_SOURCE"]), repeats))
    finally:
        torch.set_num_threads(threads)


def plain_and_ours(config: TrainConfig, batch: int, repeats: int) -> Times:
    """Time behaviour cloning on `batch` samples.

    Ours includes gathering the windows and converting them to floating point. The plain step receives them ready,
    because bench data measures its reader.
    """
    ours = Steps(with_batch(config, "finetune", batch), demo_subset(config, 0))
    with InOwnProcess(plain_step, config, batch) as plain:
        return alternate(ours.step, plain, repeats, f"batch {batch}, ours and plain")


def plain_step(config: TrainConfig, batch: int) -> Callable[[], float]:
    spec = libero_spec(config.image_px, config.history, config.text_encoder, TEXT_WIDTH)
    windows = Windows([demo_subset(config, 0)], config.history).gather(np.arange(batch))
    inputs = to_model_input(windows["images"], windows["joint"], windows["gripper"], windows["text"])
    inputs["images"] = {name: x.contiguous() for name, x in inputs["images"].items()}
    trainer, action = PlainTrainer(config, spec), torch.from_numpy(windows["action"])
    return lambda: trainer.step(inputs, action)


def er_and_m2distill(config: TrainConfig, batch: int, repeats: int) -> Times:
    """Time M2Distill (as ours) and ER (as plain) on the same `batch` samples, half of them replayed."""
    half = batch // 2
    m2distill, er = (
        Steps(with_batch(config, strategy, half, half), demo_subset(config, 1), [demo_subset(config, 0)])
        for strategy in ("m2distill", "er")
    )
    return alternate(m2distill.step, er.step, repeats, f"batch {batch}, M2Distill and ER")


def precision_gap(config: TrainConfig, strategy: str, steps: int) -> dict:
    """Return the gap between training in float32 and in bfloat16.

    The gap is the largest difference between mean losses of BLOCK steps, as a share of the decrease of the loss. Losses
    of single steps cannot be compared: the two runs diverge a little with every step, as do two orders of summation.
    """
    config = dataclasses.replace(
        config.with_strategy(strategy), optim=dataclasses.replace(config.optim, budget=steps, budget_unit="steps")
    )
    blocks = {}
    for precision in PRECISIONS:
        progress(f"{steps} steps of {strategy} in {precision}")
        stage = Steps(
            dataclasses.replace(config, precision=precision),
            demo_subset(config, 1),
            [] if strategy == "finetune" else [demo_subset(config, 0)],
        )
        losses = np.array([stage.step()["loss"] for _ in range(steps)])
        blocks[precision] = losses.reshape(-1, BLOCK).mean(1)
    full, half = (blocks[precision] for precision in PRECISIONS)
    gap, fall = np.abs(full - half).max(), full[0] - full[-1]
    return {
        "name": f"gap of {strategy}'s losses in bfloat16, as a share of their fall",
        "preset": config.preset,
        "batch": config.optim.batch_size,
        "steps": steps,
        "gap_nats": round(float(gap), 3),
        "fall_nats": round(float(fall), 3),
        **judged(float(gap / fall), "<=", 0.05),
    }


def demo_subset(config: TrainConfig, task: int) -> DemoSubset:
    return DemoSubset(memory_store(DEMO_STEPS, config.image_px, task), text(task), demos=(0,))
