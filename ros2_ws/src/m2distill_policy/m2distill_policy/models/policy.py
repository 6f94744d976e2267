"""Policy network: observations and a sentence embedding -> a mixture over actions, and the latents for distillation.

Letters: B batch, T steps (oldest first), N tokens per step (text, joint, gripper, then one per view), D token width,
L text width, A action, J joints, G gripper. A batch is the dict that batch.to_model_input returns:
    images {camera: (B, T, 3, H, W) float32 in [0, 1]}, joint (B, T, J) rad, gripper (B, T, G) m, text (B, L)
"""

import warnings
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

NON_IMAGE_TOKENS = ("text", "joint", "gripper")


class Batch(TypedDict):
    """Input of the network; shapes are in the module docstring."""

    images: dict[str, Tensor]
    joint: Tensor
    gripper: Tensor
    text: Tensor


@dataclass
class PolicyOutput:
    """Output of the network."""

    dist: MixtureSameFamily  # batch shape (B, T), event (A,)
    latents: dict[str, Tensor]  # "text", "joint", "gripper" and every camera: (B, T, D), before the transformer


class Policy(nn.Module):
    """Image encoders and linear projections to tokens, a temporal transformer and a mixture head."""

    def __init__(self, config: ModelConfig, spec: PolicySpec):
        super().__init__()
        for camera in spec.cameras:
            if camera.name in NON_IMAGE_TOKENS:
                raise SpecError(
                    f"a camera is named {camera.name!r}, which is the name of another input; rename the camera"
                )
        self.config, self.spec = config, spec
        # In the order of the spec's cameras
        self.image_encoders = nn.ModuleList(ImageEncoder(config, spec.text_width) for _ in spec.cameras)
        self.text: nn.Module = nn.Linear(spec.text_width, config.width)
        self.joint = nn.Linear(len(spec.joint_names), config.width)
        with warnings.catch_warnings():  # an arm without a gripper has a constant token, the bias
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.gripper = nn.Linear(len(spec.gripper_joint_names), config.width)
        self.transformer = TemporalTransformer(config)
        self.head = MixtureHead(config)
        # This layout makes convolutions faster. The stubs of torch lack this argument.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, batch: Batch) -> PolicyOutput:
        """Return mixture and latents of every step of the batch."""
        return self.read_out(self.encode(batch))

    def read_out(self, latents: dict[str, Tensor]) -> PolicyOutput:
        """Return the mixture of every step from the tokens that `encode` returned."""
        with torch.autocast(latents["joint"].device.type, enabled=False):
            x = self.transformer(torch.stack(tuple(latents.values()), 2))  # (B, T, N, D)
            return PolicyOutput(self.head(x[:, :, 0]), latents)  # the text token carries the action

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Return the N tokens of every step by name, each (B, T, D) float32.

        Only the convolutions follow the caller's autocast: they are nearly all of the cost, and the other layers are
        sensitive to rounding.
        """
        return self.encode_other(batch) | self.encode_images(batch)

    def encode_images(self, batch: Batch) -> dict[str, Tensor]:
        """Return the tokens of the views by camera, each (B, T, D)."""
        return {
            camera.name: encoder(batch["images"][camera.name], batch["text"])
            for camera, encoder in zip(self.spec.cameras, self.image_encoders, strict=True)
        }

    def encode_other(self, batch: Batch) -> dict[str, Tensor]:
        """Return the tokens that no image is needed for, each (B, T, D): those of `encode` before the views."""
        steps = batch["joint"].shape[1]
        with torch.autocast(batch["joint"].device.type, enabled=False):
            return {
                "text": self.text(batch["text"])[:, None].expand(-1, steps, -1),
                "joint": self.joint(batch["joint"]),
                "gripper": self.gripper(batch["gripper"] * self.config.gripper_gain),
            }

    def encode_step(self, batch: Batch) -> Tensor:
        """Return the tokens (B, 1, N, D) of a batch with T = 1, to be queued for `decode`."""
        return torch.stack(tuple(self.encode(batch).values()), 2)

    def decode(self, tokens_BTND: Tensor) -> MixtureSameFamily:
        """Return the mixture of the newest step, batch shape (B,), from the tokens of up to `history` steps."""
        return self.head(self.transformer(tokens_BTND)[:, -1, 0])
