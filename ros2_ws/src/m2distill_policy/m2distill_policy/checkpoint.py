"""A policy on disk: a directory without pickle, verified file by file when it is read.

    spec.json model.json         what the policy sees and commands; the sizes of its network
    weights.safetensors          exactly the tensors that the two determine
    instructions.safetensors     {instruction: sentence embedding (L,)} of every instruction it was trained on
    metrics.json                 what was measured, free-form
    SHA256SUMS                   of the five, for `sha256sum -c` too; its own sha256 is the checkpoint's id

The id therefore names the content: two checkpoints with one id are the same policy.
"""

import functools
import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from m2distill_policy.errors import CheckpointError, SpecError
from m2distill_policy.models import ModelConfig, Policy
from m2distill_policy.spec import SPEC, SUMS, PolicySpec, checkpoint_id
from m2distill_policy.utils.files import sync, write_durably

FILES = (SPEC, "model.json", "weights.safetensors", "instructions.safetensors", "metrics.json")


@dataclass(frozen=True)
class Checkpoint:
    spec: PolicySpec
    model_config: ModelConfig
    state_dict: dict[str, Tensor]
    instructions: dict[str, np.ndarray]  # instruction -> float32 (L,)
    metrics: dict[str, Any] = field(default_factory=dict)
    id: str = ""  # sha256 hex, set by load_checkpoint

    def build_policy(self) -> Policy:
        """The network with these weights, in training mode."""
        policy = Policy(self.model_config, self.spec)
        policy.load_state_dict(self.state_dict)
        return policy


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> str:
    """Write `checkpoint` to the directory `path` and return its id.

    Readers see all of it or none. A checkpoint already there is replaced; anything else there is left alone. Raises
    CheckpointError, also for weights that do not fit the spec or are not finite.
    """
    path = Path(path)
    if path.exists() and not (path / SUMS).is_file():
        raise CheckpointError(f"{path} exists and is not a checkpoint; choose another path or remove it")
    _check(checkpoint, str(path))
    contents = _encode(checkpoint)
    try:
        _replace_directory(path, contents)
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {path}: {error}") from None
    return checkpoint_id(contents[SUMS])


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify the directory `path`; tensors on the CPU. Raises CheckpointError."""
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint at {path}: it is not a directory")
    missing = [name for name in (*FILES, SUMS) if not (path / name).is_file()]
    if missing:
        raise CheckpointError(f"{path} is not a checkpoint: it lacks {', '.join(missing)}")
    try:
        contents = {name: (path / name).read_bytes() for name in (*FILES, SUMS)}
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    sums = contents.pop(SUMS)
    if sums != _sums(contents):
        altered = ", ".join(name for name in FILES if _sum(name, contents[name]) not in sums) or SUMS
        raise CheckpointError(f"{path} is damaged: {altered} does not match {SUMS}; restore it from a copy")
    try:
        checkpoint = _decode(contents, checkpoint_id(sums))
    except (SpecError, SafetensorError, ValueError, RecursionError) as error:  # the last: JSON nested without end
        raise CheckpointError(f"{path} is not a checkpoint of this version: {error}") from None
    _check(checkpoint, str(path))
    return checkpoint


def _encode(checkpoint: Checkpoint) -> dict[str, bytes]:
    """File name -> content, SHA256SUMS last."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.state_dict.items()}
    contents = {
        SPEC: checkpoint.spec.to_json().encode(),
        "model.json": checkpoint.model_config.to_json().encode(),
        "weights.safetensors": safetensors.torch.save(weights),
        "instructions.safetensors": safetensors.numpy.save(checkpoint.instructions),
        "metrics.json": (json.dumps(checkpoint.metrics, indent=2, sort_keys=True, allow_nan=False) + "\n").encode(),
    }
    return {**contents, SUMS: _sums(contents)}


def _decode(contents: dict[str, bytes], its_id: str) -> Checkpoint:
    metrics = json.loads(contents["metrics.json"])
    if not isinstance(metrics, dict):
        raise ValueError(f"metrics.json holds a {type(metrics).__name__}, expected an object")
    return Checkpoint(
        spec=PolicySpec.from_json(contents[SPEC].decode()),
        model_config=ModelConfig.from_json(contents["model.json"].decode()),
        state_dict=safetensors.torch.load(contents["weights.safetensors"]),
        instructions=safetensors.numpy.load(contents["instructions.safetensors"]),
        metrics=metrics,
        id=its_id,
    )


def _check(checkpoint: Checkpoint, where: str) -> None:
    """Every tensor that spec and model determine is there, no other, in its shape and dtype, and finite."""
    expected = _expected(checkpoint.model_config, checkpoint.spec)
    got = checkpoint.state_dict
    missing, unknown = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{where}: weights do not fit the model: missing {_few(missing)}, unknown {_few(unknown)}"
        )
    for name, tensor in got.items():
        want = expected[name]
        if tensor.shape != want.shape or tensor.dtype != want.dtype:
            raise CheckpointError(
                f"{where}: weight {name} is {tensor.dtype} {tuple(tensor.shape)}, "
                f"expected {want.dtype} {tuple(want.shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{where}: weight {name} holds values that are not finite")
    for text, embedding in checkpoint.instructions.items():
        if embedding.shape != (checkpoint.spec.text_width,) or embedding.dtype != np.float32:
            raise CheckpointError(
                f"{where}: the embedding of {text!r} is {embedding.dtype} {embedding.shape}, "
                f"expected float32 ({checkpoint.spec.text_width},)"
            )
        if not np.isfinite(embedding).all():
            raise CheckpointError(f"{where}: the embedding of {text!r} holds values that are not finite")


@functools.lru_cache(maxsize=8)
def _expected(model_config: ModelConfig, spec: PolicySpec) -> dict[str, torch.Tensor]:
    """Tensors without content. Working them out holds Python for as long as a control period lasts."""
    with torch.device("meta"):
        return Policy(model_config, spec).state_dict()


def _few(names: list[str]) -> str:
    return f"[{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}]"


def _sums(contents: dict[str, bytes]) -> bytes:
    return b"".join(_sum(name, contents[name]) for name in FILES)


def _sum(name: str, content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()


def _replace_directory(path: Path, contents: dict[str, bytes]) -> None:
    """Write the files beside `path`, then swap the whole directory in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    new, old = scratch / "new", scratch / "old"
    try:
        new.mkdir()
        for name, content in contents.items():
            write_durably(new / name, content)
        sync(new)
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        sync(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
