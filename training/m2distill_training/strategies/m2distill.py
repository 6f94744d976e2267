"""M2Distill: behaviour cloning on current and replayed samples, with four distillation terms to a frozen teacher.

The student makes one forward pass through the mixed batch: a BatchNorm network then uses and keeps the statistics of
all tasks together. The teacher is in evaluation mode (running statistics, no dropout) and receives the same augmented
tensors.
"""

import copy
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from m2distill_policy.models import Batch, Policy, PolicyOutput
from m2distill_policy.models.image_encoder import ImageEncoder
from m2distill_policy.models.optimize import fold_batch_norms
from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.losses.bc import bc_loss
from m2distill_training.losses.distill import gaussians, policy_kl, reverse_policy_kl, sample_actions, token_distance
from m2distill_training.strategies.base import Samples, Strategy
from m2distill_training.strategies.configs import DistillConfig

TERMS = ("image", "text", "extra", "policy")
CPU_PIXELS = 20 * 128 * 128  # pixels of one view in one chunk of the teacher


class M2Distill(Strategy):
    """Replay with distillation of the image, text, proprioception and policy terms."""

    Config = DistillConfig
    uses_replay = True

    def __init__(self, config: DistillConfig):
        super().__init__(config)
        self.teacher: Policy | None = None

    def begin_task(self, policy: Policy, previous: Policy | None) -> None:
        self.teacher = None
        if previous is not None:
            self.teacher = copy.deepcopy(previous).eval().requires_grad_(False)
            for encoder in cast(Iterable[ImageEncoder], self.teacher.image_encoders):
                fold_batch_norms(encoder)  # saves a seventh of its forward pass

    def loss(self, policy: Policy, samples: Samples) -> dict[str, Tensor]:
        weights = {name: weight for name in TERMS if (weight := getattr(self.config, name)) > 0}
        if self.teacher is None or not weights:
            return super().loss(policy, samples)
        inputs, rows, drawn = self.distillation_inputs(samples)
        student = policy(inputs)
        bc = bc_loss(_mixture_rows(student.dist, slice(len(samples.action))), samples.action)
        teacher = teacher_forward(self.teacher, rows_of(inputs, rows))

        def distance(latent: str) -> Tensor:
            return token_distance(student.latents[latent][rows], teacher.latents[latent])

        compute = {
            "image": lambda: sum((distance(camera) for camera in inputs["images"]), start=torch.zeros(())),
            "text": lambda: distance("text"),
            "extra": lambda: distance("joint") + distance("gripper"),
            "policy": lambda: self._policy_term(_mixture_rows(student.dist, rows), teacher.dist, samples.rng, drawn),
        }
        terms = {name: compute[name]() for name in weights}
        total = sum((weights[name] * term for name, term in terms.items()), start=bc)
        return {"loss": total, "bc": bc, **terms}

    def distillation_inputs(self, samples: Samples) -> tuple[Batch, slice, slice | Tensor]:
        """Return the inputs of the student, the rows of them that the teacher receives too, and their rows of `rng`.

        The first rows of the inputs are the samples.
        """
        rows = {
            "current": slice(None, samples.n_current),
            "replay": slice(samples.n_current, None),
            "both": slice(None),
        }[self.config.on]
        return samples.inputs, rows, rows

    def _policy_term(
        self, student: MixtureSameFamily, teacher: MixtureSameFamily, rng: SampleRng, rows: slice | Tensor
    ) -> Tensor:
        steps, n = teacher.batch_shape[1], self.config.kl_samples
        mean = teacher.component_distribution.mean  # (B, T, K, A)
        modes, actions = mean.shape[2:]
        if self.config.kl_direction == "student_teacher":
            return reverse_policy_kl(student, teacher, rng.normal(steps, n, modes, actions)[rows].to(mean.device))
        uniform, normal = rng.uniform(steps, n)[rows], rng.normal(steps, n, actions)[rows]
        return policy_kl(student, teacher, sample_actions(teacher, uniform.to(mean.device), normal.to(mean.device)))


@torch.no_grad()
def teacher_forward(teacher: Policy, batch: Batch) -> PolicyOutput:
    """Return teacher(batch) for a teacher in evaluation mode.

    Without gradients no activations are stored, so a CPU can process few images at a time within its cache: 160 images
    of 128 px take 1.2 s instead of 1.7 s of one core.
    """
    n, steps = batch["joint"].shape[:2]
    pixels = steps * max(x.shape[-2] * x.shape[-1] for x in batch["images"].values())  # of a sample
    size = max(1, CPU_PIXELS // pixels) if batch["joint"].device.type == "cpu" else n
    chunks = [teacher.encode(rows_of(batch, slice(i, i + size))) for i in range(0, n, size)]
    return teacher.read_out({name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]})


def rows_of(batch: Batch, rows: slice | Tensor) -> Batch:
    """Return some rows of a batch."""
    return Batch(
        images={name: x[rows] for name, x in batch["images"].items()},
        joint=batch["joint"][rows],
        gripper=batch["gripper"][rows],
        text=batch["text"][rows],
    )


def _mixture_rows(dist: MixtureSameFamily, rows: slice) -> MixtureSameFamily:
    """Return the mixtures of some rows of the batch; torch's distributions cannot be indexed."""
    parts = gaussians(dist)
    return MixtureSameFamily(
        Categorical(logits=dist.mixture_distribution.logits[rows], validate_args=False),
        Independent(Normal(parts.loc[rows], parts.scale[rows], validate_args=False), 1, validate_args=False),
        validate_args=False,
    )
