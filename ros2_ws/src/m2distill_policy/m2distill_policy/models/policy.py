"""The policy network: observations and a sentence embedding -> a mixture over actions, and the latents distilled.

Letters: B batch, T steps (oldest first), N tokens per step (text, joint, gripper, then one per view), D token width,
L text width, A action, J joints, G gripper. A batch is the dict of observation_tensors.to_model_input:
    images {camera: (B, T, 3, H, W) float32 in [0, 1]}, joint (B, T, J) rad, gripper (B, T, G) m, text (B, L)
"""

from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.distributions import MixtureSameFamily

from m2distill_policy.errors import SpecError
from m2distill_policy.models.config import ModelConfig
from m2distill_policy.models.image_encoder import ImageEncoder
from m2distill_policy.models.mixture_head import MixtureHead
from m2distill_policy.models.transformer import TemporalTransformer
from m2distill_policy.spec import PolicySpec

OTHER_TOKENS = ("text", "joint", "gripper")


class Batch(TypedDict):
    images: dict[str, Tensor]
    joint: Tensor
    gripper: Tensor
    text: Tensor


@dataclass
class PolicyOutput:
    dist: MixtureSameFamily  # batch shape (B, T), event (A,)
    latents: dict[str, Tensor]  # "text", "joint", "gripper" and every camera: (B, T, D), before the transformer


class Policy(nn.Module):
    def __init__(self, config: ModelConfig, spec: PolicySpec):
        super().__init__()
        for camera in spec.cameras:
            if camera.name in OTHER_TOKENS:
                raise SpecError(f"a camera is named {camera.name!r}, which is the name of another input; rename it")
        self.config, self.spec = config, spec
        self.image_encoders = nn.ModuleList(ImageEncoder(config, spec.text_width) for _ in spec.cameras)  # spec's order
        self.text: nn.Module = nn.Linear(spec.text_width, config.width)
        self.joint = nn.Linear(len(spec.joint_names), config.width)
        self.gripper = nn.Linear(len(spec.gripper_joint_names), config.width)
        self.transformer = TemporalTransformer(config)
        self.head = MixtureHead(config)
        # Faster convolutions. torch's stubs leave this argument out.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, batch: Batch) -> PolicyOutput:
        return self.read_out(self.encode(batch))

    def read_out(self, latents: dict[str, Tensor]) -> PolicyOutput:
        """What follows `encode`."""
        with torch.autocast(latents["joint"].device.type, enabled=False):
            x = self.transformer(torch.stack(tuple(latents.values()), 2))  # (B, T, N, D)
            return PolicyOutput(self.head(x[:, :, 0]), latents)  # the text token carries the action

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """The N tokens of every step by name, each (B, T, D) float32. Only the convolutions follow a caller's autocast:
        they are nearly all of the cost, and the rest is where rounding hurts."""
        steps = batch["joint"].shape[1]
        with torch.autocast(batch["joint"].device.type, enabled=False):
            latents = {
                "text": self.text(batch["text"])[:, None].expand(-1, steps, -1),
                "joint": self.joint(batch["joint"]),
                "gripper": self.gripper(batch["gripper"] * self.config.gripper_gain),
            }
        for camera, encoder in zip(self.spec.cameras, self.image_encoders, strict=True):
            latents[camera.name] = encoder(batch["images"][camera.name], batch["text"])
        return latents

    def encode_step(self, batch: Batch) -> Tensor:
        """A batch of T = 1 -> its tokens (B, 1, N, D), to be queued for `decode`."""
        return torch.stack(tuple(self.encode(batch).values()), 2)

    def decode(self, tokens_BTND: Tensor) -> MixtureSameFamily:
        """Tokens of the last t <= history steps -> the mixture of the newest step, batch shape (B,)."""
        return self.head(self.transformer(tokens_BTND)[:, -1, 0])
