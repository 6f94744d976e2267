"""Memory of a strategy on disk: one safetensors file beside the checkpoint of its stage."""

from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from m2distill_training.runs.records import RunError, write_atomic


def save_memory(path: Path, memory: dict[str, Tensor]) -> None:
    """Write the tensors to `path`. Raises RunError."""
    write_atomic(path, safetensors.torch.save({name: x.cpu().contiguous() for name, x in memory.items()}))


def load_memory(path: Path) -> dict[str, Tensor]:
    """Return what `save_memory` wrote, on the CPU. Raises RunError."""
    try:
        return safetensors.torch.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{path}, which the next stage needs, cannot be read ({error}); restore it, or remove the "
            f"checkpoint beside it and repeat the command to learn that stage again"
        ) from None
