"""SPREAD-like distillation: tokens are held within low-rank subspaces, and confident actions alone.

SPREAD (Roy et al., "SPREAD: Subspace Representation Distillation for Lifelong Imitation Learning", ICRA 2026, arXiv
2603.08763) aligns the SVD subspaces of the multimodal features of student and teacher, and distils the policy on the M
most confident action samples. Its code is not public. The loss here is ours (losses/subspace.py), and so is the rest:
the tokens, units, weights as shares and samples of every term are those of m2distill.
"""

from torch import Tensor
from torch.distributions import MixtureSameFamily

from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.losses.distill import sample_actions
from m2distill_training.losses.subspace import confident_policy_kl, subspace_distance
from m2distill_training.strategies.configs import SpreadConfig
from m2distill_training.strategies.m2distill import M2Distill


class Spread(M2Distill):
    """M2Distill with subspace distances and the divergence on confident actions."""

    Config = SpreadConfig

    def token_term(self, name: str, student: Tensor, teacher: Tensor) -> Tensor:
        size = self.sizes[name] if self.sizes else student.new_tensor(float(student.shape[-1]))
        return subspace_distance(student, teacher, self.config.rank, size)

    def policy_term(
        self, student: MixtureSameFamily, teacher: MixtureSameFamily, rng: SampleRng, rows: Tensor
    ) -> Tensor:
        device, steps, n = teacher.component_distribution.mean.device, teacher.batch_shape[1], self.config.kl_samples
        actions = teacher.event_shape[0]
        uniform, normal = rng.uniform(steps, n)[rows], rng.normal(steps, n, actions)[rows]
        drawn = sample_actions(teacher, uniform.to(device), normal.to(device))
        return confident_policy_kl(student, teacher, drawn, self.config.confident)
