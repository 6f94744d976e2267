"""What M2Distill asks of the student besides the demos: stay near the teacher. Pure functions of tensors.

| term     | function        | compares                                                              |
|----------|-----------------|-----------------------------------------------------------------------|
| L_image  | token_distance  | view tokens, one term per view                                        |
| L_text   | token_distance  | projected text tokens                                                 |
| L_extra  | token_distance  | joint tokens, gripper tokens                                          |
| L_policy | policy_kl       | the two action mixtures                                               |

Tokens are compared before the temporal transformer and averaged over B, T and D: our choices, the paper is silent.
Letters: B batch, T steps, D token width, N Monte-Carlo samples, K mixture modes, A action.
"""

from typing import cast

import torch
from torch import Tensor
from torch.distributions import Independent, MixtureSameFamily, Normal


def token_distance(student_BTD: Tensor, teacher_BTD: Tensor) -> Tensor:
    """Squared L2 distance between tokens, mean over B, T and D. No gradient reaches the teacher."""
    return (student_BTD.float() - teacher_BTD.detach().float()).square().mean()


def gaussians(dist: MixtureSameFamily) -> Normal:
    """The mixture's components, (B, T, K, A)."""
    return cast(Normal, cast(Independent, dist.component_distribution).base_dist)


def sample_actions(dist: MixtureSameFamily, uniform_BTN: Tensor, normal_BTNA: Tensor) -> Tensor:
    """N actions (N, B, T, A) of a mixture with batch shape (B, T), made of draws of the uniform distribution, which
    choose the modes, and of the standard normal one. No gradient."""
    with torch.no_grad():
        base = gaussians(dist)
        share_BTK = dist.mixture_distribution.probs.cumsum(-1)
        mode_BTN = torch.searchsorted(share_BTK, uniform_BTN, right=True).clamp_(max=share_BTK.shape[-1] - 1)
        of_mode = mode_BTN[..., None].expand(normal_BTNA.shape)
        return (base.loc.gather(2, of_mode) + base.scale.gather(2, of_mode) * normal_BTNA).movedim(2, 0)


def policy_kl(student: MixtureSameFamily, teacher: MixtureSameFamily, action_NBTA: Tensor) -> Tensor:
    """KL(teacher || student) in nats, mean over B and T: the Monte-Carlo mean of log p_t - log p_s over actions drawn
    from the teacher (sample_actions). No gradient through the actions or the teacher."""
    with torch.no_grad():
        teacher_NBT = teacher.log_prob(action_NBTA)
    return (teacher_NBT - student.log_prob(action_NBTA)).mean()


def reverse_policy_kl(student: MixtureSameFamily, teacher: MixtureSameFamily, normal_BTNKA: Tensor) -> Tensor:
    """KL(student || teacher) in nats, mean over B and T, with a gradient to every student parameter.

    A mixture has no reparameterised sample, its components have: of draws of the standard normal distribution N samples
    are made of each of the K modes, and weighted by the modes' probabilities.
    """
    base = gaussians(student)
    action_NKBTA = (base.loc[:, :, None] + base.scale[:, :, None] * normal_BTNKA).permute(2, 3, 0, 1, 4)
    gap_NKBT = student.log_prob(action_NKBTA) - teacher.log_prob(action_NKBTA)
    weight_BTK = student.mixture_distribution.probs
    return (gap_NKBT.movedim(1, -1) * weight_BTK).sum(-1).mean()
