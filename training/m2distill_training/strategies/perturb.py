"""M2Distill on perturbed samples: the teacher also answers for observations that no demonstration shows.

A replayed demonstration is one trajectory, and a policy can learn it by heart: its likelihood rises from stage to
stage while that of the same task from other initial states falls. The terms cannot prevent this where they see that
trajectory alone. Each sample is therefore shown to student and teacher a second time, perturbed:

- each view is shifted by a distance of its own, so the object is elsewhere;
- joint and gripper state may be those of another sample, so the arm is elsewhere;
- the instruction is one of an earlier task: a replayed sample may keep its own, otherwise it is drawn.

No demonstrated action belongs to such an observation, so behaviour cloning does not use it, but the teacher has an
answer. The idea of matching a teacher's function on strongly augmented inputs is that of Beyer et al., "Knowledge
distillation: A good teacher is patient and consistent" (CVPR 2022, arXiv 2106.05237). These perturbations, and their
use against forgetting, are ours.
"""

import torch

from m2distill_policy.models import Batch, Policy
from m2distill_training.engine.augment import shift
from m2distill_training.strategies.base import Samples, StageContext
from m2distill_training.strategies.configs import PerturbConfig
from m2distill_training.strategies.m2distill import M2Distill, ShownSamples
from m2distill_training.strategies.recall import Recall


class Perturbation:
    """Shows all samples of a gradient step a second time, perturbed.

    Args:
        config: the hyper-parameters.
        context: what the stage is about.

    Raises:
        ValueError: there is no context, or no earlier task.
    """

    def __init__(self, config: PerturbConfig, context: StageContext | None):
        if context is None or len(context.instructions) == 0:
            raise ValueError("perturbation needs the instructions of earlier tasks, which the trainer sets")
        self._config, self._instructions = config, context.instructions
        first = context.first_batch().inputs  # alike in every process and part, and after a resume
        self._joint, self._gripper = first["joint"], first["gripper"]

    def __call__(self, samples: Samples) -> ShownSamples:
        """Return the samples, and all of them again, perturbed."""
        plain, changed = samples.inputs, self._perturbed(samples)
        inputs = Batch(
            images={name: torch.cat([x, changed["images"][name]]) for name, x in plain["images"].items()},
            joint=torch.cat([plain["joint"], changed["joint"]]),
            gripper=torch.cat([plain["gripper"], changed["gripper"]]),
            text=torch.cat([plain["text"], changed["text"]]),
        )
        n = len(samples.action)
        return ShownSamples(
            inputs, samples.n_current, n, torch.arange(n).repeat(2), samples.replay_ids, windows=samples.windows
        )

    def _perturbed(self, samples: Samples) -> Batch:
        config, rng, inputs = self._config, samples.rng, samples.inputs
        text, joint, gripper = inputs["text"], inputs["joint"], inputs["gripper"]
        drawn = self._instructions[rng.integers(len(self._instructions))].to(text)
        replayed = torch.arange(len(text)) >= samples.n_current
        keeps = (rng.uniform() < config.own_instruction) & replayed
        images = {}
        for name, x in inputs["images"].items():
            pad = round(config.shift * min(x.shape[-2:]))
            images[name] = shift(x, pad, rng.integers(2 * pad + 1, 2).tolist())
        other, moved = rng.integers(len(self._joint)), (rng.uniform() < config.recombine)
        elsewhere = moved.to(joint.device)[:, None, None]
        return Batch(
            images=images,
            joint=torch.where(elsewhere, self._joint[other.to(self._joint.device)].to(joint), joint),
            gripper=torch.where(elsewhere, self._gripper[other.to(self._gripper.device)].to(gripper), gripper),
            text=torch.where(keeps.to(text.device)[:, None], text, drawn),
        )


class PerturbedSamples(M2Distill):
    """What perturb and latent_perturb add to recall and latent_recall: the samples shown again are perturbed."""

    Config = PerturbConfig

    def begin_task(self, policy: Policy, previous: Policy | None) -> None:
        super().begin_task(policy, previous)
        if self.teacher is not None:
            self.perturbation = Perturbation(self.config, self.context)

    def shown_twice(self, samples: Samples) -> ShownSamples:
        return self.perturbation(samples)


class Perturb(PerturbedSamples, Recall):
    """Distillation on the samples and on all of them perturbed."""
