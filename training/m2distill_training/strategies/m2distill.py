"""M2Distill: behaviour cloning on current and replayed samples, with four distillation terms to a frozen teacher.

The student makes one forward pass through the mixed batch: a BatchNorm network then uses and keeps the statistics of
all tasks together. The teacher is in evaluation mode (running statistics, no dropout) and receives the same augmented
tensors.

With `distill.balance_every`, a weight is a share of the gradient of behaviour cloning: the trainer measures the norm of
cloning's gradient and of every term's, and the term's multiplier is set so that the shares hold (losses/distill.py).
"""

import copy
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily
from torch.nn import functional as F

from m2distill_policy.models import Batch, Policy, PolicyOutput
from m2distill_policy.models.image_encoder import ImageEncoder
from m2distill_policy.models.mixture_head import mixture
from m2distill_policy.models.optimize import fold_batch_norms
from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.losses.bc import bc_loss
from m2distill_training.losses.distill import (
    gaussians,
    multiplier,
    policy_kl,
    relative_distance,
    reverse_policy_kl,
    sample_actions,
    token_distance,
    token_power,
    token_variance,
    widened,
)
from m2distill_training.strategies.base import Samples, Strategy
from m2distill_training.strategies.configs import TERMS, DistillConfig, option_prefix
from m2distill_training.strategies.token_cache import TokenCache
from m2distill_training.utils.checks import ConfigError

CPU_PIXELS = 20 * 128 * 128  # pixels of one view in one chunk of the teacher


@dataclass(frozen=True)
class ShownSamples:
    """Inputs of the student, in this order: current, replayed and relabelled samples.

    The first `n_samples` rows are the samples of the gradient step. Relabelled ones are some of them again, with other
    instructions, and have no actions.
    """

    inputs: Batch
    n_current: int
    n_samples: int
    rng_rows: Tensor  # (rows,) int64: the row of the step's `rng` that each of them uses
    replay_ids: Tensor | None = None  # windows of the replayed samples, see Samples
    image_tokens: dict[str, Tensor] | None = None  # of all rows, if the image encoders are frozen
    windows: Tensor | None = None  # (n_samples,) see Samples

    def windows_of_rows(self) -> Tensor | None:
        """Return the number of each row's window, -1 for relabelled samples."""
        relabelled = len(self.rng_rows) - self.n_samples
        return None if self.windows is None else F.pad(self.windows, (0, relabelled), value=-1)

    def rows(self, on: str) -> slice:
        """Return the rows of `distill.on`: replay includes relabelled samples, because the teacher answers both."""
        return {
            "current": slice(0, self.n_current),
            "replay": slice(self.n_current, len(self.rng_rows)),
            "both": slice(0, len(self.rng_rows)),
            "relabelled": slice(self.n_samples, len(self.rng_rows)),
        }[on]


class M2Distill(Strategy):
    """Replay with distillation of the image, text, proprioception and policy terms.

    `memory` holds the last gradient norm of each term and its multiplier while `distill.balance_every` is set.
    """

    Config = DistillConfig
    uses_replay = True
    relabels: ClassVar[bool] = False  # distillation_samples adds relabelled samples

    def __init__(self, config: DistillConfig):
        super().__init__(config)
        self.teacher: Policy | None = None
        self.weights = {name: weight for name in TERMS if (weight := getattr(config, name)) > 0}
        self.cache: TokenCache | None = None  # of the teacher's image tokens
        self.sizes: dict[str, Tensor] = {}  # of the teacher's tokens, for distill.unit "teacher"
        for name in self.weights:
            if config.samples_of(name) == "relabelled" and not self.relabels:
                option = f"{option_prefix(type(config))}.{f'{name}_on' if getattr(config, f'{name}_on') else 'on'}"
                raise ConfigError(
                    f"{option} is 'relabelled', but this strategy has current and replayed samples only; "
                    "choose current, replay or both, or --strategy relabel or recall"
                )

    def begin_task(self, policy: Policy, previous: Policy | None) -> None:
        self.teacher = self.cache = None
        if self.context is not None and self.context.constant_windows:
            self.cache = TokenCache(self.context.constant_windows)
        if previous is not None:
            self.teacher = copy.deepcopy(previous).eval().requires_grad_(False)
            for encoder in cast(Iterable[ImageEncoder], self.teacher.image_encoders):
                fold_batch_norms(encoder)  # saves a seventh of its forward pass
            if self.config.unit == "teacher":
                self.sizes = self._token_sizes(self.teacher)

    def loss(self, policy: Policy, samples: Samples) -> dict[str, Tensor]:
        if self.teacher is None or not self.weights:
            return super().loss(policy, samples)
        shown = self.distillation_samples(samples)
        inputs, rows = shown.inputs, {name: shown.rows(self.config.samples_of(name)) for name in self.weights}
        student = self.student_output(policy, shown)
        cloned = slice(shown.n_samples if self.config.clone_replay else shown.n_current)
        bc = bc_loss(mixture_rows(student.dist, cloned), samples.action[cloned])
        first = min(x.start for x in rows.values())
        teacher = self.teacher_output(shown, slice(first, max(x.stop for x in rows.values())))

        def of_teacher(term: str) -> slice:
            return slice(rows[term].start - first, rows[term].stop - first)

        def distance(term: str, latent: str) -> Tensor:
            return self.token_term(
                latent, student.latents[latent][rows[term]], teacher.latents[latent][of_teacher(term)]
            )

        def divergence(term: str) -> Tensor:
            ours = widened(mixture_rows(student.dist, rows[term]), self.config.kl_min_std)
            part = of_teacher(term)
            whole = part == slice(0, teacher.dist.batch_shape[0])
            theirs = teacher.dist if whole else mixture_rows(teacher.dist, part)
            theirs = widened(theirs, self.config.kl_min_std)
            return self.policy_term(ours, theirs, samples.rng, shown.rng_rows[rows[term]])

        compute = {
            "image": lambda: sum((distance("image", camera) for camera in inputs["images"]), start=torch.zeros(())),
            "text": lambda: distance("text", "text"),
            "extra": lambda: distance("extra", "joint") + distance("extra", "gripper"),
            "policy": lambda: divergence("policy"),
        }
        terms = {name: compute[name]() for name in self.weights}
        total = sum((self.factor(name) * term for name, term in terms.items()), start=bc)
        return {"loss": total, "bc": bc, **terms}

    def distillation_samples(self, samples: Samples) -> ShownSamples:
        """Return the samples that the student receives; a subclass may add relabelled ones."""
        n = len(samples.action)
        return ShownSamples(
            samples.inputs, samples.n_current, n, torch.arange(n), samples.replay_ids, windows=samples.windows
        )

    def student_output(self, policy: Policy, shown: ShownSamples) -> PolicyOutput:
        """Return the student's output for all samples."""
        return policy(shown.inputs)

    def teacher_output(self, shown: ShownSamples, rows: slice) -> PolicyOutput:
        """Return the teacher's output for some of the samples, without gradient."""
        windows = shown.windows_of_rows()
        cache = None if windows is None else self.cache
        return teacher_forward(
            cast(Policy, self.teacher), rows_of(shown.inputs, rows), cache, None if windows is None else windows[rows]
        )

    def measured_losses(self, step: int) -> tuple[str, ...]:
        every = self.config.balance_every
        due = every > 0 and step > 0 and (step % every == 0 or step == every // 4)  # once early: weights have no scale
        return ("bc", *self.weights) if due and self.weights and self.teacher is not None else ()

    def take_gradient_norms(self, norms: dict[str, float]) -> None:
        for name, share in self.weights.items():
            previous = self.memory.get(f"multiplier_{name}")
            factor = multiplier(share, norms["bc"], norms[name], None if previous is None else previous.item())
            self.memory[f"multiplier_{name}"] = torch.tensor(factor)
        self.memory |= {f"grad_norm_{name}": torch.tensor(norm) for name, norm in norms.items()}

    def log_values(self) -> dict[str, float]:
        return {name: x.item() for name, x in sorted(self.memory.items())}

    def factor(self, term: str) -> float:
        """Return the factor of a term in the loss: its weight until its gradient was measured."""
        balanced = self.memory.get(f"multiplier_{term}")
        return self.weights[term] if balanced is None else balanced.item()

    def _token_sizes(self, teacher: Policy) -> dict[str, Tensor]:
        """Return the size of each of the teacher's tokens in the whole first batch of the stage.

        The batch is that of all processes and parts, so the sizes are the same in each of them and after a resume.
        """
        if self.context is None:
            raise ValueError("distill.unit 'teacher' needs the context of the stage, which the trainer sets")
        latents = teacher_forward(teacher, self.context.first_batch().inputs).latents
        return {name: (token_power if name == "text" else token_variance)(x) for name, x in latents.items()}

    def token_term(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the distance between tokens of that name."""
        if not self.sizes:
            return token_distance(student, teacher)
        return relative_distance(student, teacher, self.sizes[name])

    def policy_term(
        self, student: MixtureSameFamily, teacher: MixtureSameFamily, rng: SampleRng, rows: Tensor
    ) -> Tensor:
        """Return the divergence between the mixtures of the samples `rows` of the gradient step."""
        steps, n = teacher.batch_shape[1], self.config.kl_samples
        mean = teacher.component_distribution.mean  # (B, T, K, A)
        modes, actions = mean.shape[2:]
        if self.config.kl_direction == "student_teacher":
            return reverse_policy_kl(student, teacher, rng.normal(steps, n, modes, actions)[rows].to(mean.device))
        uniform, normal = rng.uniform(steps, n)[rows], rng.normal(steps, n, actions)[rows]
        return policy_kl(student, teacher, sample_actions(teacher, uniform.to(mean.device), normal.to(mean.device)))


@torch.no_grad()
def teacher_forward(
    teacher: Policy, batch: Batch, cache: TokenCache | None = None, windows: Tensor | None = None
) -> PolicyOutput:
    """Return teacher(batch) for a teacher in evaluation mode.

    Args:
        teacher: the teacher.
        batch: the samples.
        cache: image tokens of windows that were encoded before with this teacher and this precision.
        windows: (B,) the number of each sample's window, for the cache.
    """
    other = [teacher.encode_other(rows_of(batch, rows)) for rows in teacher_parts(batch)]
    tokens = {name: torch.cat([part[name] for part in other]) for name in other[0]}
    return teacher.read_out(tokens | image_tokens(teacher, batch, cache, windows))


@torch.no_grad()
def image_tokens(
    teacher: Policy, batch: Batch, cache: TokenCache | None = None, windows: Tensor | None = None
) -> dict[str, Tensor]:
    """Return the teacher's image tokens; the arguments are those of `teacher_forward`.

    Without gradients no activations are stored, so a CPU can process few images at a time within its cache: 160 images
    of 128 px take 1.2 s instead of 1.7 s of one core.
    """
    found = []
    for rows in teacher_parts(batch):
        encode = functools.partial(teacher.encode_images, rows_of(batch, rows))
        found.append(encode() if cache is None or windows is None else cache.tokens(windows[rows], encode))
    return {name: torch.cat([part[name] for part in found]) for name in found[0]}


def teacher_parts(batch: Batch) -> list[slice]:
    """Return the rows that a teacher processes at a time."""
    n, steps = batch["joint"].shape[:2]
    pixels = steps * max(x.shape[-2] * x.shape[-1] for x in batch["images"].values())  # of a sample
    size = max(1, CPU_PIXELS // pixels) if batch["joint"].device.type == "cpu" else n
    return [slice(i, i + size) for i in range(0, n, size)]


def rows_of(batch: Batch, rows: slice | Tensor) -> Batch:
    """Return some rows of a batch."""
    return Batch(
        images={name: x[rows] for name, x in batch["images"].items()},
        joint=batch["joint"][rows],
        gripper=batch["gripper"][rows],
        text=batch["text"][rows],
    )


def mixture_rows(dist: MixtureSameFamily, rows: slice) -> MixtureSameFamily:
    """Return the mixtures of some rows of the batch; torch's distributions cannot be indexed."""
    parts = gaussians(dist)
    return mixture(dist.mixture_distribution.logits[rows], parts.loc[rows], parts.scale[rows])
