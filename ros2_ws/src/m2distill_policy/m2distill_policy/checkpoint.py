"""Checkpoint: a policy on disk, as a directory without pickle. Every file is verified when it is read.

    spec.json model.json         inputs and actions of the policy; sizes of its network
    weights.safetensors          exactly the tensors that these two files determine
    instructions.safetensors     {instruction: sentence embedding (L,)} of every instruction it was trained on
    metrics.json                 measurements, free-form
    SHA256SUMS                   of the five files, as `sha256sum -c` reads it; its own sha256 is the checkpoint's id

The id identifies the content: two checkpoints with one id are the same policy.
"""

import dataclasses
import errno
import functools
import hashlib
import json
import os
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
from m2distill_policy.utils.files import exchange, fsync_path, new_folder, write_durably
from m2distill_policy.utils.schema import NewerSchema, with_schema, without_schema

TRIES = 10  # of reading a checkpoint that is replaced meanwhile
FILES = (SPEC, "model.json", "weights.safetensors", "instructions.safetensors", "metrics.json")


@dataclass(frozen=True)
class Checkpoint:
    """A policy in memory, with everything that its directory holds."""

    spec: PolicySpec
    model_config: ModelConfig
    state_dict: dict[str, Tensor]
    instructions: dict[str, np.ndarray]  # instruction -> float32 (L,)
    metrics: dict[str, Any] = field(default_factory=dict)
    id: str = ""  # sha256 hex, set by load_checkpoint

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names SUITE/NAME of the simulated tasks that it knows, as far as they are recorded."""
        names = self.metrics.get("tasks")
        return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()

    def build_policy(self) -> Policy:
        """Return the network with these weights, in training mode."""
        policy = Policy(self.model_config, self.spec)
        policy.load_state_dict(self.state_dict)
        return policy


def save_checkpoint(path: Path, checkpoint: Checkpoint, half_decoders: bool = False) -> str:
    """Write a checkpoint to the directory `path` and return its id.

    Readers see the complete checkpoint or none. An existing checkpoint is replaced. With `half_decoders`, the decoders
    after the first are rounded to half precision, which halves their part of the file.

    Raises:
        CheckpointError: `path` exists and is not a checkpoint, the weights do not fit the spec, are not finite or are
            beyond half precision, or the directory cannot be written.
    """
    path = Path(path)
    if path.exists() and not (path / SUMS).is_file():
        raise CheckpointError(f"{path} exists and is not a checkpoint; choose another path or remove it")
    _check(checkpoint, str(path))
    contents = _encode(checkpoint, half_decoders)
    try:
        _replace_directory(path, contents)
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {path}: {error}") from None
    return checkpoint_id(contents[SUMS])


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify the directory `path`. Its tensors are on the CPU.

    Raises:
        CheckpointError: a file is missing, unreadable or altered, or of another version.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint at {path}: it is not a directory")
    missing = [name for name in (*FILES, SUMS) if not (path / name).is_file()]
    if missing:
        raise CheckpointError(f"{path} is not a checkpoint: it lacks {', '.join(missing)}")
    try:
        contents = _read_files(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    sums = contents.pop(SUMS)
    if sums != _sums(contents):
        altered = ", ".join(name for name in FILES if _sum(name, contents[name]) not in sums) or SUMS
        raise CheckpointError(f"{path} is damaged: {altered} does not match {SUMS}; restore it from a copy")
    try:
        checkpoint = _decode(contents, checkpoint_id(sums))
    except NewerSchema as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (SpecError, SafetensorError, ValueError, RecursionError) as error:  # RecursionError: JSON nested too deeply
        raise CheckpointError(f"{path} is not a checkpoint of this version: {error}") from None
    _check(checkpoint, str(path))
    return checkpoint


def _read_files(path: Path) -> dict[str, bytes]:
    """Return the content of every file. All are of one directory, also if a writer replaces it meanwhile."""
    for last in (False,) * (TRIES - 1) + (True,):
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return {name: _read_file(directory, name) for name in (*FILES, SUMS)}
        except FileNotFoundError:
            if last or os.path.samestat(os.fstat(directory), os.stat(path)):
                raise
        finally:
            os.close(directory)
    raise AssertionError("the last try returns or raises")


def _read_file(directory: int, name: str) -> bytes:
    with open(name, "rb", opener=lambda name, flags: os.open(name, flags, dir_fd=directory)) as file:
        return file.read()


def _encode(checkpoint: Checkpoint, half_decoders: bool) -> dict[str, bytes]:
    """Return file name -> content, SHA256SUMS last. Raises CheckpointError for weights that half precision lacks."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.state_dict.items()}
    if half_decoders:
        weights |= {name: x.half() for name, x in weights.items() if _may_be_half(name, x.dtype)}
        if beyond := [name for name, x in weights.items() if not torch.isfinite(x).all()]:
            raise CheckpointError(f"weight {beyond[0]} has values beyond those of half precision; keep the checkpoint")
    contents = {
        SPEC: checkpoint.spec.to_json().encode(),
        "model.json": checkpoint.model_config.to_json().encode(),
        "weights.safetensors": safetensors.torch.save(weights),
        "instructions.safetensors": safetensors.numpy.save(checkpoint.instructions),
        "metrics.json": (
            json.dumps(with_schema(checkpoint.metrics), indent=2, sort_keys=True, allow_nan=False) + "\n"
        ).encode(),
    }
    return {**contents, SUMS: _sums(contents)}


def _may_be_half(name: str, dtype: torch.dtype) -> bool:
    return name.startswith("decoders.") and dtype in (torch.float32, torch.float16)


def _decode(contents: dict[str, bytes], content_id: str) -> Checkpoint:
    metrics = without_schema(json.loads(contents["metrics.json"]))
    if not isinstance(metrics, dict):
        raise ValueError(f"metrics.json holds a {type(metrics).__name__}, expected an object")
    weights = safetensors.torch.load(contents["weights.safetensors"])
    return Checkpoint(
        spec=PolicySpec.from_json(contents[SPEC].decode()),
        model_config=ModelConfig.from_json(contents["model.json"].decode()),
        state_dict={name: x.float() if _may_be_half(name, x.dtype) else x for name, x in weights.items()},
        instructions=safetensors.numpy.load(contents["instructions.safetensors"]),
        metrics=metrics,
        id=content_id,
    )


def _check(checkpoint: Checkpoint, where: str) -> None:
    """Require exactly the tensors that spec and model determine, in shape and dtype, all of them finite."""
    expected = _expected(checkpoint.model_config, checkpoint.spec)
    got = checkpoint.state_dict
    missing, unknown = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{where}: weights do not fit the model: missing {_shorten(missing)}, unknown {_shorten(unknown)}"
        )
    for name, tensor in got.items():
        right = expected[name]
        if tensor.shape != right.shape or tensor.dtype != right.dtype:
            raise CheckpointError(
                f"{where}: weight {name} is {tensor.dtype} {tuple(tensor.shape)}, "
                f"expected {right.dtype} {tuple(right.shape)}"
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
    """Return the state dict of the network without content.

    Cached, because building the network blocks Python for about one control period. One decoder stands for all.
    """
    decoders = model_config.decoders
    with torch.device("meta"):
        found = Policy(dataclasses.replace(model_config, decoders=decoders[:2]), spec).state_dict()
        if decoders:
            found["decoder_texts"] = torch.zeros(sum(decoders), model_config.width)
    one = {name.removeprefix("decoders.0."): x for name, x in found.items() if name.startswith("decoders.0.")}
    return found | {f"decoders.{i}.{name}": x for i in range(1, len(decoders) - 1) for name, x in one.items()}


def _shorten(names: list[str]) -> str:
    """Return at most three of the names as text."""
    return f"[{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}]"


def _sums(contents: dict[str, bytes]) -> bytes:
    return b"".join(_sum(name, contents[name]) for name in FILES)


def _sum(name: str, content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()


def _replace_directory(path: Path, contents: dict[str, bytes]) -> None:
    """Write the files beside `path`, then put the complete directory in its place in one step."""
    with new_folder(path) as scratch:
        new = scratch / "new"
        new.mkdir()
        for name, content in contents.items():
            write_durably(new / name, content)
        fsync_path(new)
        _put_in_place(new, path, scratch / "old")
        fsync_path(path.parent)


def _put_in_place(new: Path, path: Path, old: Path) -> None:
    try:
        new.rename(path)  # works if there is nothing, or an empty directory
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    if exchange(new, path):
        return
    path.rename(old)  # here a reader may find nothing for a moment
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
