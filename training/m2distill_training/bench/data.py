"""Benchmark `bench data`: windows per second, and the memory of the trainer as tasks add up."""

import dataclasses
import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from m2distill_policy.cameras import CAMERAS
from m2distill_policy.errors import require_at_least
from m2distill_policy.models import Batch
from m2distill_policy.models.batch import to_model_input
from m2distill_policy.spec import libero_spec
from m2distill_training.bench.measure import InOwnProcess, alternate, judged, machine, progress, show
from m2distill_training.bench.plain import plain_batches, plain_dataset
from m2distill_training.bench.steps import Steps, with_batch
from m2distill_training.bench.synthetic import TEXT_WIDTH, text, write_file
from m2distill_training.data.store import Store, open_store
from m2distill_training.data.windows import DemoSubset, Windows, batch_ids
from m2distill_training.presets import libero
from m2distill_training.utils.allocator import freed_memory_kept

BATCH, HISTORY = 32, libero().history
PAIRING = "as_stored"  # robomimic's
COLUMNS = (
    "name",
    "batch",
    "earlier_tasks",
    "ours_windows_s",
    "plain_windows_s",
    "own_mb",
    "mapped_mb",
    "step_ms",
    "weights_kb",
    "instructions_kb",
    "ratio",
    "bar",
    "holds",
)


@freed_memory_kept()  # as the trainer does
def bench_data(data: Path | None = None, json: bool = False, quick: bool = False, repeats: int = 20) -> None:
    """Run the benchmark and print its rows; `m2distill bench data --help` describes it. Raises UserError."""
    require_at_least(1, repeats=repeats)
    with tempfile.TemporaryDirectory() as folder:
        file = data or write_file(Path(folder, "read.hdf5"), *((2, 40, 16) if quick else (10, 120, 128)))
        rows = reading_speed(file, Path(folder, "cache"), repeats)
        many = write_file(Path(folder, "many.hdf5"), *((2, 20, 16) if quick else (50, 130, 16)))
        rows += trainer_memory(many, (1, 3), 2, 3) if quick else trainer_memory(many, (1, 10, 100), 8, 8)
    here = machine()
    show([row | here for row in rows], COLUMNS, json)


def reading_speed(file: Path, cache: Path, repeats: int) -> list[dict]:
    """Measure random windows in batches, read by one process.

    One row is for windows as the store returns them (uint8), one for windows as the network and robomimic need them
    (float32 in [0, 1]).
    """
    size_px = plain_dataset(file, HISTORY)[0]["obs"][CAMERAS[0].hdf5_key].shape[-1]  # so that neither side resizes
    spec = libero_spec(size_px, HISTORY, text_width=TEXT_WIDTH)
    windows = Windows([_part(open_store(file, spec, PAIRING, cache), 0)], HISTORY)
    turn = itertools.count()

    def frames() -> dict:
        return windows.gather(batch_ids(len(windows), BATCH, next(turn), (0,)))

    def tensors() -> Batch:
        batch = frames()
        return to_model_input(batch["images"], batch["joint"], batch["gripper"], batch["text"])

    rows = []
    for name, ours in (("windows as stored", frames), ("windows as float tensors", tensors)):
        with InOwnProcess(plain_reader, file, repeats + 1) as plain:
            times = alternate(ours, plain, repeats, name)
        rows.append(
            {
                "name": name,
                "batch": BATCH,
                "image_px": size_px,
                "history": HISTORY,
                "repeats": repeats,
                "ours_windows_s": round(BATCH / times.ours),
                "plain_windows_s": round(BATCH / times.plain),
                **judged(times.plain / times.ours, ">=", 10),
            }
        )
    return rows


def plain_reader(file: Path, batches: int) -> Callable[[], dict]:
    batch = iter(plain_batches(plain_dataset(file, HISTORY), BATCH, batches))
    return lambda: next(batch)


def trainer_memory(file: Path, counts: tuple[int, ...], batch: int, steps: int) -> list[dict]:
    """Measure some steps of M2Distill before a task that follows `counts` others, each in a separate process.

    Every task is the same file opened again, with images of 16 px: the images are not what a task adds to the memory of
    the process.
    """
    rows = []
    for earlier in counts:
        with multiprocessing.get_context("spawn").Pool(1) as process:
            row = process.apply(after_tasks, (file, earlier, batch, steps))
        progress(f"after {earlier} tasks: {row}")
        rows.append({"name": "trainer after other tasks", "earlier_tasks": earlier, **row})
    return rows


@freed_memory_kept()
def after_tasks(file: Path, earlier: int, batch: int, steps: int) -> dict:
    """Return the memory after earlier tasks and some steps on `batch` new and as many old windows; in a new process.

    Megabytes: `own` belongs to the process alone, `mapped` are pages of files, which the system can reclaim.
    """
    config = dataclasses.replace(with_batch(libero(), "m2distill", batch, batch), image_px=16)
    spec = libero_spec(16, HISTORY, text_width=TEXT_WIDTH)
    *before, current = (_part(open_store(file, spec, PAIRING), task) for task in range(earlier + 1))
    trainer = Steps(config, current, before)
    seconds = []
    for _ in range(steps):
        begun = time.perf_counter()
        trainer.step()
        seconds.append(time.perf_counter() - begun)
    memory = psutil.Process().memory_info()
    return {
        "own_mb": round((memory.rss - memory.shared) / 2**20),
        "mapped_mb": round(memory.shared / 2**20),
        "step_ms": round(1e3 * statistics.median(seconds[1:])),
        **trainer.checkpoint_kb(),
    }


def _part(store: Store, task: int) -> DemoSubset:
    return DemoSubset(dataclasses.replace(store, instruction=f"task {task}"), text(task), tuple(range(store.n_demos)))
