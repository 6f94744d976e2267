"""Latent drift: how far the policy's latents of an old task have moved since that task was learned.

The teacher is the checkpoint of the stage that learned the task, the student is every later checkpoint that knows it.
Both receive the same windows, without augmentation, of demos that the replay memory never held: the distillation terms
have not acted on them, so the drift is that of the task and not of its replayed samples. The drift of any strategy can
be measured afterwards from a run folder.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_policy.models import Batch, PolicyOutput
from m2distill_policy.models.batch import to_model_input
from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.data.store import Store, find_store, open_store
from m2distill_training.data.windows import DemoSubset, Windows
from m2distill_training.losses.distill import policy_kl, sample_actions, token_distance
from m2distill_training.runs.records import RunError, writing
from m2distill_training.runs.run_folder import RunFolder, has_learned, read_run
from m2distill_training.runs.tensorboard import FOLDER, drift_points, write_events
from m2distill_training.utils.schemas import fits, is_count, is_number, is_text

WINDOWS = 32  # per task
KL_SAMPLES = 16


def _is_distances(distances: Any) -> bool:
    return fits(distances, {}) and all(is_text(name) and is_number(x) for name, x in distances.items())


def _is_replayed(replayed: Any) -> bool:
    return fits(replayed, {}) and fits([*replayed.values()], [[is_count]])


DRIFT = {
    "entries": [{"learned_in_stage": is_count, "stage": is_count, "policy_kl": is_number, "relative": _is_distances}]
}


def measure_drift(path: Path, cache: Path | None = None) -> dict:
    """Write drift.json in the run folder `path` and return its content: one entry per old task and later stage.

    Raises UserError.

    "distance" is that of the loss: squared L2, mean over windows, time and width. "relative" divides it by the mean
    square of the teacher's latents, so that modalities can be compared. "policy_kl" is KL(teacher || student) in nats.
    """
    run = RunFolder(path)
    config, data = read_run(path)
    folders = [run.checkpoint(stage) for stage in range(1, len(data) + 1)]
    checkpoints = {stage: load_checkpoint(x) for stage, x in enumerate(folders, 1) if x.is_dir()}
    entries = []
    for d in data:
        text = d["instruction"]
        knowing = [stage for stage, checkpoint in checkpoints.items() if has_learned(checkpoint, d)]
        if len(knowing) < 2:
            continue
        first, *later = knowing
        replayed = {
            demo
            for stage in later
            for name in (text, d["key"])
            for demo in _replayed(run.checkpoint(stage), checkpoints[stage]).get(name, [])
        }
        spec = checkpoints[first].spec
        found = find_store(d, spec, cache) if not Path(d["path"]).is_file() else None
        store = found or open_store(_found(Path(d["path"])), spec, config.pairing, cache, config.cameras)
        if store.key != d["key"]:
            raise RunError(f"{d['path']} has changed since the run learned it; restore it to measure drift")
        batch = _batch(store, replayed, checkpoints[first].instructions[text], config.history)
        teacher = _forward(checkpoints[first], batch)
        for stage in later:
            distances = teacher_distances(_forward(checkpoints[stage], batch), teacher)
            entries.append({"instruction": text, "learned_in_stage": first, "stage": stage, **distances})
    drift = {
        "windows_per_task": WINDOWS,
        "checkpoint_ids": [checkpoint.id for checkpoint in checkpoints.values()],
        "entries": entries,
    }
    run.write_json("drift.json", drift, DRIFT)
    with writing(path / FOLDER):
        write_events(path / FOLDER, "drift", drift_points(entries, run.metrics()))
    return drift


def _found(path: Path) -> Path:
    if not path.is_file():
        raise RunError(f"{path}, which the run learned from, is missing; restore it there to measure drift")
    return path


def _replayed(path: Path, checkpoint: Checkpoint) -> dict[str, list[int]]:
    """Return {instruction: demos} of the stage's replay memory."""
    if not fits(checkpoint.metrics, {"replayed_demos": _is_replayed}):
        raise RunError(f"{path} does not record which demonstrations were replayed; it was not made by m2distill train")
    return checkpoint.metrics["replayed_demos"]


def _batch(store: Store, replayed: set[int], text: np.ndarray, history: int) -> Batch:
    """Return windows that depend only on the demos and on which of them were replayed."""
    fresh = tuple(demo for demo in range(store.n_demos) if demo not in replayed)
    windows = Windows([DemoSubset(store, text, fresh or None)], history)  # all demos if all were replayed
    ids = np.random.default_rng(0).permutation(len(windows))[:WINDOWS]
    batch = windows.gather(ids)
    return to_model_input(batch["images"], batch["joint"], batch["gripper"], batch["text"])


@torch.no_grad()
def _forward(checkpoint: Checkpoint, batch: Batch) -> PolicyOutput:
    return checkpoint.build_policy().eval()(batch)


def teacher_distances(student: PolicyOutput, teacher: PolicyOutput) -> dict:
    """Return the distances of a student's outputs from the teacher's on the same windows, see `measure_drift`."""
    distance = {name: token_distance(student.latents[name], x).item() for name, x in teacher.latents.items()}
    B, T, _, A = teacher.dist.component_distribution.mean.shape
    rng = SampleRng.of_whole_batch(seed=0, total=B)
    actions = sample_actions(teacher.dist, rng.uniform(T, KL_SAMPLES), rng.normal(T, KL_SAMPLES, A))
    kl = policy_kl(student.dist, teacher.dist, actions).item()
    return {
        "distance": distance,
        "policy_kl": kl,
        "relative": {name: distance[name] / x.square().mean().item() for name, x in teacher.latents.items()},
    }
