"""Tensors of a strategy on disk: one safetensors file beside the checkpoint of its stage, or in a task's memory."""

from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from m2distill_policy.utils.schema import check_label, with_labels
from m2distill_training.runs.records import RunError, write_atomic

RESTORE = "restore it, or remove the checkpoint beside it and repeat the command to learn that stage again"


def save_memory(path: Path, memory: dict[str, Tensor]) -> None:
    """Write the tensors to `path`. Raises RunError."""
    tensors = {name: x.cpu().contiguous() for name, x in memory.items()}
    write_atomic(path, safetensors.torch.save(tensors, with_labels({})))


def load_memory(path: Path, remedy: str = RESTORE) -> dict[str, Tensor]:
    """Return what `save_memory` wrote, on the CPU. Raises RunError with the remedy for a file that is damaged."""
    try:
        with safe_open(path, "pt") as file:
            labels = file.metadata() or {}
        memory = safetensors.torch.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}, which the next stage needs, cannot be read ({error}); {remedy}") from None
    check_label(labels, path)
    return memory
