"""A strategy's memory on disk: one safetensors file beside the checkpoint of the step that left it."""

from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from m2distill_training.runs.run_folder import RunError, write_atomic


def save_memory(path: Path, memory: dict[str, Tensor]) -> None:
    write_atomic(path, safetensors.torch.save({name: x.cpu().contiguous() for name, x in memory.items()}))


def load_memory(path: Path) -> dict[str, Tensor]:
    """What `save_memory` wrote, on the CPU; raises RunError."""
    try:
        return safetensors.torch.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{path}, which the next step needs, cannot be read ({error}); restore it, or remove the "
            f"checkpoint beside it and --resume to learn that step again"
        ) from None
