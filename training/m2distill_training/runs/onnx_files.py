"""A checkpoint as ONNX files (models/onnx_export.py), with its spec and the embeddings of its instructions."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.numpy

from m2distill_policy.checkpoint import Checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.models.onnx_export import decoder_to_onnx, encoder_to_onnx
from m2distill_policy.utils.files import new_folder, publish_folder, write_durably


def export_onnx(checkpoint: Checkpoint, folder: Path) -> list[Path]:
    """Write the graphs of a checkpoint, its spec and its instructions' embeddings; return the paths.

    Raises:
        UserError: onnx is not installed, the folder is not empty, or it cannot be written.
    """
    policy = checkpoint.build_policy()
    return write_files(
        folder,
        {
            "encoder.onnx": encoder_to_onnx(policy),
            "decoder.onnx": decoder_to_onnx(policy),
            "spec.json": checkpoint.spec.to_json().encode(),
            "instructions.safetensors": safetensors.numpy.save(checkpoint.instructions),
        },
    )


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files as a new folder, completely or not at all; return their paths.

    Raises:
        UserError: The folder is not empty, or it cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty; choose another --out")
        with new_folder(folder) as new:
            for name, content in contents.items():
                write_durably(new / name, content)
            publish_folder(new, folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); make room, or choose another --out") from None
    return [folder / name for name in contents]
