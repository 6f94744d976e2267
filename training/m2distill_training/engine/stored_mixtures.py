"""Action mixtures of replayed demos, as the policy that had just learned their task predicts them.

    memory/<task>/mixtures.safetensors   per demo of the file: "<demo>.logits", "<demo>.mean", "<demo>.std"

The first stage that requires them computes them from the checkpoint of the stage that learned the task, for the demos
without augmentation. A checkpoint never changes, so a resumed or repeated stage, `learn` included, finds the same
mixtures, whichever strategy the earlier stages had. Letters: W windows, T steps, K mixture modes, A action.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_training.data.window_tokens import window_tokens
from m2distill_training.data.windows import DemoSubset, Windows
from m2distill_training.engine.distributed import DistributedContext
from m2distill_training.losses.distill import gaussians
from m2distill_training.runs.records import RunError
from m2distill_training.runs.run_folder import RunFolder
from m2distill_training.strategies.memory import load_memory, save_memory

PARTS = ("logits", "mean", "std")
REMEDY = "remove it and repeat the command: it is computed again from the checkpoint of the stage that learned the task"


def stored_mixtures(
    run: RunFolder,
    kept: Mapping[int, DemoSubset],
    history: int,
    distributed: DistributedContext,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """Return "logits" (W, T, K), "mean" and "std" (W, T, K, A) of all windows of the replayed demos.

    Args:
        run: the run folder, with the checkpoints of earlier stages.
        kept: replayed demos by the place of their task; the windows have the order of `Windows`.
        history: T, steps in a window.
        distributed: the processes that learn together; the leader stores what is missing.
        device: where the tensors are needed.

    Raises:
        RunError: a stored file is damaged, or no checkpoint knows a task.
    """
    if distributed.leads:
        for task, subset in kept.items():
            path = mixtures_path(run, task)
            if not path.is_file() or not _holds(load_memory(path, REMEDY), subset):
                learned = _checkpoint_that_learned(run, subset.store.instruction)
                save_memory(path, _compute(learned, subset, history, device))
    distributed.wait()  # until the leader has written them
    found = [x for task, subset in kept.items() for x in _read(mixtures_path(run, task), subset, history)]
    return {part: torch.cat([x[part] for x in found]).to(device) for part in PARTS}


def mixtures_path(run: RunFolder, task: int) -> Path:
    """Return the file of the mixtures of the task at place `task` of data.json."""
    return run.memory(task, "mixtures.safetensors")


def _numbers(subset: DemoSubset) -> Sequence[int]:
    """Return the numbers in the task's file of the chosen demos, in the order of their windows."""
    return subset.chosen if subset.numbers is None else [subset.numbers[demo] for demo in subset.chosen]


def _holds(stored: Mapping[str, Tensor], subset: DemoSubset) -> bool:
    return all(f"{number}.{part}" in stored for number in _numbers(subset) for part in PARTS)


def _checkpoint_that_learned(run: RunFolder, instruction: str) -> Checkpoint:
    """Return the checkpoint of the first stage that knows the instruction. Raises RunError."""
    stage = 1
    while run.checkpoint(stage).is_dir():
        checkpoint = load_checkpoint(run.checkpoint(stage))
        if instruction in checkpoint.instructions:
            return checkpoint
        stage += 1
    raise RunError(
        f"{run.path} holds no checkpoint that knows {instruction!r}, so its mixtures cannot be stored; restore the "
        "folder stages/ from a copy, or choose another strategy"
    )


@torch.no_grad()
def _compute(learned: Checkpoint, subset: DemoSubset, history: int, device: torch.device | str) -> dict[str, Tensor]:
    policy = learned.build_policy().eval().to(device)
    found = {}
    for demo, number in zip(subset.chosen, _numbers(subset), strict=True):
        windows = Windows([dataclasses.replace(subset, demos=(demo,))], history)
        dist = policy.read_out(window_tokens(policy, windows, device)).dist
        parts = gaussians(dist)
        for part, x in zip(PARTS, (dist.mixture_distribution.logits, parts.loc, parts.scale), strict=True):
            found[f"{number}.{part}"] = x.float()
    return found


def _read(path: Path, subset: DemoSubset, history: int) -> list[dict[str, Tensor]]:
    """Return the mixtures of every chosen demo. Raises RunError."""
    stored, found = load_memory(path, REMEDY), []
    for demo, number in zip(subset.chosen, _numbers(subset), strict=True):
        parts = {part: stored.get(f"{number}.{part}", torch.zeros(0)) for part in PARTS}
        shape = (int(subset.store.bounds[demo + 1] - subset.store.bounds[demo]), history)
        modes, actions = parts["logits"].shape[2:], subset.store.action.shape[1:]
        valid = (
            parts["logits"].ndim == 3
            and parts["logits"].shape == (*shape, *modes)
            and all(parts[part].shape == (*shape, *modes, *actions) for part in ("mean", "std"))
            and all(x.dtype == torch.float32 and bool(x.isfinite().all()) for x in parts.values())
            and bool((parts["std"] > 0).all())
        )
        if not valid:
            raise RunError(f"{path} does not hold the mixtures of demonstration {number}; {REMEDY}")
        found.append(parts)
    return found
