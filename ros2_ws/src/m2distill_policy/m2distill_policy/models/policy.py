"""Policy network: observations and a sentence embedding -> a mixture over actions, and the latents for distillation.

Letters: B batch, T steps (oldest first), N tokens per step (text, joint, gripper, then one per view), D token width,
L text width, A action, J joints, G gripper. A batch is the dict that batch.to_model_input returns:
    images {camera: (B, T, 3, H, W) float32 in [0, 1]}, joint (B, T, J) rad, gripper (B, T, G) m, text (B, L)
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict, cast

import torch
from torch import Tensor, nn
from torch.distributions import MixtureSameFamily

from m2distill_policy.errors import SpecError
from m2distill_policy.models.config import ModelConfig
from m2distill_policy.models.decoder import Decoder, Encoders, choose, projections, statistics
from m2distill_policy.models.image_encoder import ImageEncoder
from m2distill_policy.models.mixture_head import MixtureHead, mixture
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
        self.joint, self.gripper = projections(config, spec)
        self.transformer = TemporalTransformer(config)
        self.head = MixtureHead(config)
        if config.decoders:
            self.decoders = nn.ModuleList(
                Decoder(config, spec) for _ in config.decoders[1:]
            )  # transformer and head are first
            self.register_buffer("decoder_texts", torch.zeros(sum(config.decoders), config.width))  # tokens (R, D)
        # This layout makes convolutions faster. The stubs of torch lack this argument.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, batch: Batch) -> PolicyOutput:
        """Return mixture and latents of every step of the batch."""
        return self.read_out(self.encode(batch))

    def read_out(self, latents: dict[str, Tensor]) -> PolicyOutput:
        """Return the mixture of every step from the tokens that `encode` returned."""
        with torch.autocast(latents["joint"].device.type, enabled=False):
            return PolicyOutput(self.decode_all(torch.stack(tuple(latents.values()), 2)), latents)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Return the N tokens of every step by name, each (B, T, D) float32.

        Only the convolutions follow the caller's autocast: they are nearly all of the cost, and the other layers are
        sensitive to rounding.
        """
        return self._encode_text(batch) | self._by_decoder(batch, None, self._encode_sensors)

    def encode_images(self, batch: Batch, decoder: int | None = None) -> dict[str, Tensor]:
        """Return the tokens of the views by camera, each (B, T, D).

        Where decoders have encoders of their own, they are those of each instruction's decoder, or of `decoder`.
        """
        return self._by_decoder(batch, decoder, self._encode_images)

    def encode_other(self, batch: Batch, decoder: int | None = None) -> dict[str, Tensor]:
        """Return the tokens that no image is needed for, each (B, T, D): those of `encode` before the views.

        Where decoders have encoders of their own, they are those of each instruction's decoder, or of `decoder`.
        """
        return self._encode_text(batch) | self._by_decoder(batch, decoder, self._encode_arm)

    def _by_decoder(
        self, batch: Batch, decoder: int | None, encode: Callable[[Encoders, Batch], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return what `encode` returns with the encoders of each instruction's decoder, or of `decoder`."""
        if not self.config.own_encoders:
            decoder = 0
        sets = self.encoder_sets()
        if decoder is not None:
            return encode(sets[decoder], batch)
        with torch.autocast(batch["text"].device.type, enabled=False):
            decoder_B = self.decoder_of(self.text(batch["text"]))
        numbers = self._needed(decoder_B)
        found = [encode(sets[number], batch) for number in numbers]
        return dict(zip(found[0], choose([tuple(x.values()) for x in found], numbers, decoder_B), strict=True))

    def _encode_text(self, batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(batch["text"].device.type, enabled=False):
            return {"text": self.text(batch["text"])[:, None].expand(-1, batch["joint"].shape[1], -1)}

    def _encode_sensors(self, encoders: Encoders, batch: Batch) -> dict[str, Tensor]:
        return self._encode_arm(encoders, batch) | self._encode_images(encoders, batch)

    def _encode_images(self, encoders: Encoders, batch: Batch) -> dict[str, Tensor]:
        return {
            camera.name: encoder(batch["images"][camera.name], batch["text"])
            for camera, encoder in zip(self.spec.cameras, encoders.image_encoders, strict=True)
        }

    def _encode_arm(self, encoders: Encoders, batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(batch["joint"].device.type, enabled=False):
            gripper = batch["gripper"] * self.config.gripper_gain
            return {"joint": encoders.joint(batch["joint"]), "gripper": encoders.gripper(gripper)}

    def encoder_sets(self) -> list[Encoders]:
        """Return the encoders of all decoders, or the one set that serves them all."""
        if not self.config.own_encoders:
            return [cast(Encoders, self)]
        return [cast(Encoders, self), *(cast(Encoders, decoder) for decoder in self.decoders)]

    def encode_step(self, batch: Batch) -> Tensor:
        """Return the tokens (B, 1, N, D) of a batch with T = 1, to be queued for `decode`."""
        return torch.stack(tuple(self.encode(batch).values()), 2)

    def decode(self, tokens_BTND: Tensor) -> MixtureSameFamily:
        """Return the mixture of the newest step, batch shape (B,), from the tokens of up to `history` steps."""
        return self.decode_all(tokens_BTND, -1)

    def decode_all(self, tokens_BTND: Tensor, steps: Tensor | int | None = None) -> MixtureSameFamily:
        """Return the mixture of every step, batch shape (B, T).

        With `steps`, one number or one for each sample (B,), that of one step of each sample, batch shape (B,).
        """
        if not self.config.decoders:
            return mixture(*statistics(self.transformer, self.head, tokens_BTND, steps))
        decoder_B = self.decoder_of(tokens_BTND[:, 0, 0])
        numbers = self._needed(decoder_B)
        return mixture(*choose([self.decoder_statistics(i, tokens_BTND, steps) for i in numbers], numbers, decoder_B))

    def decoder_statistics(
        self, number: int, tokens_BTND: Tensor, steps: Tensor | int | None = None
    ) -> tuple[Tensor, ...]:
        """Return the `decoder.statistics` of a decoder, whatever the instruction is."""
        if number == 0:
            return statistics(self.transformer, self.head, tokens_BTND, steps)
        return cast(Decoder, self.decoders[number - 1])(tokens_BTND, steps)

    def _needed(self, decoder_B: Tensor) -> list[int]:
        """Return the decoders that some sample needs: all for a traced graph, which serves every instruction.

        Each of them receives all samples, so that the result for one sample does not depend on the others.
        """
        every = torch.onnx.is_in_onnx_export()
        return list(range(len(self.config.decoders))) if every else decoder_B.unique().tolist()

    def decoder_of(self, text_BD: Tensor) -> Tensor:
        """Return the number of the decoder (B,) whose instructions include the one nearest to each text token."""
        decoder_R = [number for number, count in enumerate(self.config.decoders) for _ in range(count)]
        return torch.tensor(decoder_R, device=text_BD.device)[
            distances(text_BD, cast(Tensor, self.decoder_texts)).argmin(1)
        ]

    def add_decoder(self, known_RL: Tensor, new_RL: Tensor, source: int, own_encoders: bool = False) -> None:
        """Add a decoder with the weights of another one, in place.

        Args:
            known_RL: Sentence embeddings of the instructions that the policy knows.
            new_RL: Sentence embeddings of the new decoder's instructions.
            source: Number of the decoder that it is a copy of.
            own_encoders: Whether decoders have encoders of their own, alike for all of them.

        Raises:
            ValueError: The embeddings of two instructions that different decoders serve have one text token.
        """
        known, new = self._text_tokens(known_RL), self._text_tokens(new_RL)
        if self.config.decoders:
            known = cast(Tensor, self.decoder_texts)
        if (distances(known, new) < 1e-8 * new.square().sum(-1)).any():  # beyond rounding
            raise ValueError("a new instruction has the text token of a known one and cannot choose a decoder")
        counts = self.config.decoders or (len(known_RL),)
        config = dataclasses.replace(self.config, decoders=(*counts, len(new_RL)), own_encoders=own_encoders)
        decoder = Decoder(config, self.spec).to(new.device)
        decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        decoder.load_state_dict(self.decoder_state(source, own_encoders))
        self.decoders = nn.ModuleList([*(self.decoders if self.config.decoders else []), decoder.train(self.training)])
        self.register_buffer("decoder_texts", torch.cat([known, new]))
        self.config = config

    @torch.no_grad()
    def _text_tokens(self, embeddings_RL: Tensor) -> Tensor:
        return self.text(embeddings_RL.to(self.head.mean.weight))

    def decoder_state(self, number: int, own_encoders: bool) -> dict[str, Tensor]:
        """Return the weights of a decoder by the names that `Decoder` gives them, with or without encoders."""
        if number > 0:
            return self.decoders[number - 1].state_dict()
        parts: dict[str, nn.Module] = {"transformer": self.transformer, "head": self.head}
        if own_encoders:
            parts |= {"image_encoders": self.image_encoders, "joint": self.joint, "gripper": self.gripper}
        return {f"{name}.{key}": x for name, part in parts.items() for key, x in part.state_dict().items()}


def distances(a_BD: Tensor, b_RD: Tensor) -> Tensor:
    """Return the squared distance (B, R) of each pair of rows."""
    return (a_BD[:, None] - b_RD).square().sum(-1)
