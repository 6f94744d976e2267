"""Latent replay: image encoders that are frozen after the first stage, and replayed samples as tokens.

The idea is that of MLR (Yu et al., "Lifelong Imitation Learning with Multimodal Latent Replay and Incremental
Adjustment", CVPR 2026, arXiv 2603.10929): tokens of frozen encoders do not age, so they are replayed instead of images.
Ours differs: the encoders are those that the first stage learned instead of large pretrained ones, the projections of
text, joints and gripper remain trainable, and the terms of M2Distill that can still act (text, extra, policy) hold them
and the transformer. `distill.image` is not computed: image tokens cannot drift.

The image tokens of all replayed windows are computed once at the beginning of a stage, without augmentation. In a
gradient step the image encoders see the current samples alone, without a backward pass, and one pass serves student and
teacher. The cost is transfer: the encoders never learn what a new task shows, so a first stage with few tasks limits
all later ones.
"""

import dataclasses
from typing import cast

import torch
from torch import Tensor, nn

from m2distill_policy.models import Batch, Policy, PolicyOutput
from m2distill_training.data.window_tokens import window_tokens
from m2distill_training.losses.bc import bc_loss
from m2distill_training.strategies.base import Samples
from m2distill_training.strategies.configs import DistillConfig
from m2distill_training.strategies.m2distill import M2Distill, ShownSamples, image_tokens, rows_of


class LatentReplay(M2Distill):
    """M2Distill on tokens of frozen image encoders."""

    def __init__(self, config: DistillConfig):
        super().__init__(config)
        self.weights.pop("image", None)
        self.replayed: dict[str, Tensor] = {}  # image tokens (W, T, D) of all replayed windows

    def begin_task(self, policy: Policy, previous: Policy | None) -> None:
        super().begin_task(policy, previous)
        if self.teacher is None:
            return
        policy.image_encoders.requires_grad_(False)
        for module in policy.image_encoders.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()  # its statistics stay those of the teacher
        if self.context is not None and self.context.replay is not None:
            device = next(self.teacher.parameters()).device
            tokens = window_tokens(self.teacher, self.context.replay, device)
            self.replayed = {camera.name: tokens[camera.name] for camera in policy.spec.cameras}

    def loss(self, policy: Policy, samples: Samples) -> dict[str, Tensor]:
        if self.teacher is None or self.weights:
            return super().loss(policy, samples)
        bc = bc_loss(self.student_output(policy, self.distillation_samples(samples)).dist, samples.action)
        return {"loss": bc, "bc": bc}

    def distillation_samples(self, samples: Samples) -> ShownSamples:
        """Return the samples with the image tokens that student and teacher share."""
        current = slice(samples.n_current)
        windows = None if samples.windows is None else samples.windows[current]
        tokens = self.image_tokens(rows_of(samples.inputs, current), windows)
        if self.replayed:
            ids = samples.replay_ids.to(samples.action.device)
            tokens = {name: torch.cat([x, self.replayed[name][ids]]) for name, x in tokens.items()}
        return dataclasses.replace(super().distillation_samples(samples), image_tokens=tokens)

    def student_output(self, policy: Policy, shown: ShownSamples) -> PolicyOutput:
        return policy.read_out(policy.encode_other(shown.inputs) | cast(dict, shown.image_tokens))

    @torch.no_grad()
    def teacher_output(self, shown: ShownSamples, rows: slice) -> PolicyOutput:
        teacher, tokens = cast(Policy, self.teacher), cast(dict, shown.image_tokens)
        other = teacher.encode_other(rows_of(shown.inputs, rows))
        return teacher.read_out(other | {name: x[rows] for name, x in tokens.items()})

    def image_tokens(self, batch: Batch, windows: Tensor | None = None) -> dict[str, Tensor]:
        """Return the image tokens of a batch from the frozen encoders."""
        return image_tokens(cast(Policy, self.teacher), batch, self.cache, windows)
