"""Which weights act for an instruction: checkpoints that share them have the same episodes."""

import dataclasses
import hashlib

import numpy as np
import torch

from m2distill_policy.cameras import recorded_cameras
from m2distill_policy.checkpoint import Checkpoint
from m2distill_policy.language.instruction_text import normalise
from m2distill_policy.models import ModelConfig, Policy


def acting_id(checkpoint: Checkpoint, instruction: str, policy: Policy | None = None) -> str:
    """Return an id of all that determines the actions for an instruction, apart from random numbers.

    It is the checkpoint's id, or with decoders a digest of the weights that serve the instruction, so a checkpoint that
    only adds decoders for other instructions has the same one.

    Args:
        checkpoint: a checkpoint with an id.
        instruction: an instruction.
        policy: its network; default: built here.
    """
    known = {normalise(text): embedding for text, embedding in checkpoint.instructions.items()}
    embedding = known.get(normalise(instruction))
    if not checkpoint.model_config.decoders or embedding is None:
        return checkpoint.id
    policy = policy or checkpoint.build_policy()
    digest = hashlib.sha256()
    for text in (
        _one_decoder(checkpoint).to_json(),
        checkpoint.spec.to_json(),
        repr(recorded_cameras(checkpoint.metrics)),
    ):
        digest.update(text.encode() + b"\0")
    digest.update(embedding.tobytes())
    for name, x in sorted(acting_weights(policy, _decoder(policy, embedding)).items()):
        digest.update(f"{name} {tuple(x.shape)} {x.dtype}\0".encode())
        digest.update(x.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def first_decoder(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint without id that has the first decoder alone, and the instructions that it serves."""
    if not checkpoint.model_config.decoders:
        return dataclasses.replace(checkpoint, id="")
    policy = checkpoint.build_policy()
    served = {text: x for text, x in checkpoint.instructions.items() if _decoder(policy, x) == 0}
    return Checkpoint(checkpoint.spec, _one_decoder(checkpoint), acting_weights(policy, 0), served, checkpoint.metrics)


@torch.no_grad()
def _decoder(policy: Policy, embedding: np.ndarray) -> int:
    return int(policy.decoder_of(policy.text(torch.from_numpy(embedding)[None])))


def _one_decoder(checkpoint: Checkpoint) -> ModelConfig:
    return dataclasses.replace(checkpoint.model_config, decoders=(), own_encoders=False)


def acting_weights(policy: Policy, number: int) -> dict[str, torch.Tensor]:
    """Return the weights that act for the instructions of a decoder, under the names of a network without others."""
    own = policy.decoder_state(number, policy.config.own_encoders)
    others = ("decoders.", "decoder_texts")  # the latter only choose
    return {name: x for name, x in policy.state_dict().items() if not name.startswith(others)} | own
