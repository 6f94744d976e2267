"""Latent drift: how far the policy's latents of an old task have moved since that task was learned.

The teacher is the checkpoint of the stage that learned the task, the student every later checkpoint that obeys it; both
see the same windows, without augmentation, of demos that no replay memory of the run held: there the distillation terms
have not acted, so the numbers say what became of the task and not of its kept samples. Any strategy can be measured so,
afterwards, from what a run folder holds.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_policy.models import Batch, PolicyOutput
from m2distill_policy.models.batch import to_model_input
from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.data.store import Store, open_store
from m2distill_training.data.windows import DemoSubset, Windows
from m2distill_training.losses.distill import policy_kl, sample_actions, token_distance
from m2distill_training.runs.run_folder import RunError, RunFolder, read_run
from m2distill_training.utils.schemas import fits, is_count, is_number, is_text

WINDOWS = 32  # per task
KL_SAMPLES = 16


def _is_moved(distances: Any) -> bool:
    return fits(distances, {}) and all(is_text(name) and is_number(x) for name, x in distances.items())


def _is_demos(replayed: Any) -> bool:
    return fits(replayed, {}) and fits([*replayed.values()], [[is_count]])


DRIFT = {"entries": [{"learned_in_stage": is_count, "stage": is_count, "policy_kl": is_number, "relative": _is_moved}]}


def measure_drift(path: Path, cache: Path | None = None) -> dict:
    """drift.json of the run folder `path`, and its content: one entry per old task and later stage. Raises UserError.

    "distance" is the loss's own: squared L2, mean over windows, time and width; "relative" divides it by the mean
    square of the teacher's latents, so that modalities compare. "policy_kl" is KL(teacher || student) in nats.
    """
    run = RunFolder(path)
    config, data = read_run(path)
    folders = [run.checkpoint(stage) for stage in range(1, len(data) + 1)]
    checkpoints = {stage: load_checkpoint(x) for stage, x in enumerate(folders, 1) if x.is_dir()}
    entries = []
    for d in data:
        text = d["instruction"]
        knowing = [stage for stage, checkpoint in checkpoints.items() if text in checkpoint.instructions]
        if len(knowing) < 2:
            continue
        first, *later = knowing
        replayed = {
            demo for stage in later for demo in _replayed(run.checkpoint(stage), checkpoints[stage]).get(text, [])
        }
        store = open_store(Path(d["path"]), checkpoints[first].spec, config.pairing, cache, config.cameras)
        if store.key != d["key"]:
            raise RunError(f"{d['path']} has changed since the run learned it; restore it to measure drift")
        batch = _batch(store, replayed, checkpoints[first].instructions[text], config.history)
        teacher = _forward(checkpoints[first], batch)
        for stage in later:
            distances = _distances(_forward(checkpoints[stage], batch), teacher)
            entries.append({"instruction": text, "learned_in_stage": first, "stage": stage, **distances})
    drift = {
        "windows_per_task": WINDOWS,
        "checkpoint_ids": [checkpoint.id for checkpoint in checkpoints.values()],
        "entries": entries,
    }
    run.write_json("drift.json", drift)
    return drift


def _replayed(path: Path, checkpoint: Checkpoint) -> dict[str, list[int]]:
    """Instruction -> demos of it in the stage's replay memory."""
    if not fits(checkpoint.metrics, {"replayed_demos": _is_demos}):
        raise RunError(f"{path} does not say which demonstrations were replayed; it was not made by m2distill train")
    return checkpoint.metrics["replayed_demos"]


def _batch(store: Store, replayed: set[int], text: np.ndarray, history: int) -> Batch:
    """The same windows whenever and for whichever strategy they are drawn, as long as the replayed demos agree."""
    fresh = tuple(demo for demo in range(store.n_demos) if demo not in replayed)
    windows = Windows([DemoSubset(store, text, fresh or None)], history)  # all demos where all were kept
    ids = np.random.default_rng(0).permutation(len(windows))[:WINDOWS]
    batch = windows.gather(ids)
    return to_model_input(batch["images"], batch["joint"], batch["gripper"], batch["text"])


@torch.no_grad()
def _forward(checkpoint: Checkpoint, batch: Batch) -> PolicyOutput:
    return checkpoint.build_policy().eval()(batch)


def _distances(student: PolicyOutput, teacher: PolicyOutput) -> dict:
    distance = {name: token_distance(student.latents[name], x).item() for name, x in teacher.latents.items()}
    B, T, _, A = teacher.dist.component_distribution.mean.shape
    draws = SampleRng.of_whole_batch(seed=0, total=B)
    actions = sample_actions(teacher.dist, draws.uniform(T, KL_SAMPLES), draws.normal(T, KL_SAMPLES, A))
    kl = policy_kl(student.dist, teacher.dist, actions).item()
    return {
        "distance": distance,
        "policy_kl": kl,
        "relative": {name: distance[name] / x.square().mean().item() for name, x in teacher.latents.items()},
    }
