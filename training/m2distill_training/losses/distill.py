"""Distillation terms of M2Distill, which hold the student near the teacher. Pure functions of tensors.

| term     | function        | compares                                                              |
|----------|-----------------|-----------------------------------------------------------------------|
| L_image  | token_distance  | view tokens, one term per view                                        |
| L_text   | token_distance  | projected text tokens                                                 |
| L_extra  | token_distance  | joint tokens, gripper tokens                                          |
| L_policy | policy_kl       | the two action mixtures                                               |

Tokens are compared before the temporal transformer and averaged over B, T and D. Both are our choices, because the
paper does not specify them. Letters: B batch, T steps, D token width, N Monte-Carlo samples, K mixture modes, A action.
"""

from typing import cast

import torch
from torch import Tensor
from torch.distributions import Independent, MixtureSameFamily, Normal


def token_distance(student_BTD: Tensor, teacher_BTD: Tensor) -> Tensor:
    """Return the squared L2 distance between tokens, mean over B, T and D. No gradient reaches the teacher."""
    return (student_BTD.float() - teacher_BTD.detach().float()).square().mean()


def gaussians(dist: MixtureSameFamily) -> Normal:
    """Return the components of the mixture, (B, T, K, A)."""
    return cast(Normal, cast(Independent, dist.component_distribution).base_dist)


def sample_actions(dist: MixtureSameFamily, uniform_BTN: Tensor, normal_BTNA: Tensor) -> Tensor:
    """Return N actions (N, B, T, A) of a mixture with batch shape (B, T), without gradient.

    Args:
        dist: the mixture.
        uniform_BTN: samples of the uniform distribution; they select the modes.
        normal_BTNA: samples of the standard normal distribution.
    """
    with torch.no_grad():
        base = gaussians(dist)
        share_BTK = dist.mixture_distribution.probs.cumsum(-1)
        mode_BTN = torch.searchsorted(share_BTK, uniform_BTN, right=True).clamp_(max=share_BTK.shape[-1] - 1)
        of_mode = mode_BTN[..., None].expand(normal_BTNA.shape)
        return (base.loc.gather(2, of_mode) + base.scale.gather(2, of_mode) * normal_BTNA).movedim(2, 0)


def policy_kl(student: MixtureSameFamily, teacher: MixtureSameFamily, action_NBTA: Tensor) -> Tensor:
    """Return KL(teacher || student) in nats, mean over B and T.

    It is the Monte-Carlo mean of log p_t - log p_s over actions of the teacher (sample_actions). No gradient passes
    through the actions or the teacher.
    """
    with torch.no_grad():
        teacher_NBT = teacher.log_prob(action_NBTA)
    return (teacher_NBT - student.log_prob(action_NBTA)).mean()


def reverse_policy_kl(student: MixtureSameFamily, teacher: MixtureSameFamily, normal_BTNKA: Tensor) -> Tensor:
    """Return KL(student || teacher) in nats, mean over B and T, with a gradient to every student parameter.

    A mixture has no reparameterised sample, but its components have: N samples of each of the K modes are computed from
    the standard normal distribution and weighted by the probabilities of the modes.
    """
    base = gaussians(student)
    action_NKBTA = (base.loc[:, :, None] + base.scale[:, :, None] * normal_BTNKA).permute(2, 3, 0, 1, 4)
    gap_NKBT = student.log_prob(action_NKBTA) - teacher.log_prob(action_NKBTA)
    weight_BTK = student.mixture_distribution.probs
    return (gap_NKBT.movedim(1, -1) * weight_BTK).sum(-1).mean()
