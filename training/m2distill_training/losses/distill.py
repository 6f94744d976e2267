"""Distillation terms of M2Distill, which hold the student near the teacher. Pure functions of tensors.

| term     | function        | compares                                                              |
|----------|-----------------|-----------------------------------------------------------------------|
| L_image  | token_distance  | view tokens, one term per view                                        |
| L_text   | token_distance  | projected text tokens                                                 |
| L_extra  | token_distance  | joint tokens, gripper tokens                                          |
| L_policy | policy_kl       | the two action mixtures                                               |

Tokens are compared before the temporal transformer. relative_distance divides the distance by the size of the
teacher's own tokens (token_variance, token_power), so that the terms have no unit. multiplier scales a term to a share
of the gradient of behaviour cloning. All are our choices, because the paper does not specify them. Letters: B batch,
T steps, D token width, N Monte-Carlo samples, K mixture modes, A action.
"""

import math
from typing import cast

import torch
from torch import Tensor
from torch.distributions import Independent, MixtureSameFamily, Normal

MULTIPLIERS = (1e-4, 1e4)  # range of the factor of a term


def full(x: Tensor) -> Tensor:
    """Return x in float32, or in float64 if it has that precision."""
    return x if x.dtype == torch.float64 else x.float()


def token_distance(student_BTD: Tensor, teacher_BTD: Tensor) -> Tensor:
    """Return the squared L2 distance between tokens, mean over B, T and D. No gradient reaches the teacher."""
    return (full(student_BTD) - full(teacher_BTD.detach())).square().mean()


def relative_distance(student_BTD: Tensor, teacher_BTD: Tensor, size: Tensor) -> Tensor:
    """Return the squared L2 distance between tokens, summed over D, mean over B and T, divided by `size`.

    Args:
        student_BTD: tokens of the student.
        teacher_BTD: tokens of the teacher; no gradient reaches them.
        size: token_variance or token_power of the teacher, a scalar. With the variance, 1 is the distance of a student
            that always outputs the teacher's mean token.
    """
    distance_BT = (full(student_BTD) - full(teacher_BTD.detach())).square().sum(-1)
    return distance_BT.mean() / size.detach()


def token_variance(token_BTD: Tensor) -> Tensor:
    """Return the variance of a token over B and T, summed over D: its mean squared distance from its mean.

    The result is at least a millionth of the token's power, so that a constant input divides by no zero.
    """
    token_BTD = full(token_BTD.detach())
    variance = (token_BTD - token_BTD.mean((0, 1))).square().sum(-1).mean()
    return variance.clamp_min((1e-6 * token_power(token_BTD)).item())


def token_power(token_BTD: Tensor) -> Tensor:
    """Return the squared L2 norm of a token, mean over B and T.

    It is the size of the text token. The variance of that token depends on how many instructions a batch holds, and is
    0 for one. A zero token is 1 away from any teacher, however many there are.
    """
    return full(token_BTD.detach()).square().sum(-1).mean().clamp_min(1e-12)


def multiplier(share: float, cloning_norm: float, term_norm: float, previous: float | None) -> float:
    """Return the factor that makes the gradient of a term `share` times the gradient of behaviour cloning.

    Args:
        share: norm of the term's gradient over that of behaviour cloning.
        cloning_norm: norm of the gradient of behaviour cloning.
        term_norm: norm of the gradient of the term without factor.
        previous: the factor so far; the result is the geometric mean of both. None: no factor was measured yet.

    The factor stays within MULTIPLIERS: a term has no gradient while student and teacher are equal.
    """
    low, high = MULTIPLIERS
    wanted = min(max(share * cloning_norm / max(term_norm, 1e-30), low), high)
    return wanted if previous is None else math.sqrt(wanted * previous)


def widened(dist: MixtureSameFamily, std: float) -> MixtureSameFamily:
    """Return the mixture with `std` added in quadrature to every standard deviation: a convolution with a Gaussian.

    Two mixtures whose deviations are tiny have an enormous divergence although their actions are alike. With std = 0
    the result is `dist` itself.
    """
    if std == 0:
        return dist
    parts = gaussians(dist)
    wide = Normal(parts.loc, (parts.scale.square() + std**2).sqrt(), validate_args=False)
    return MixtureSameFamily(dist.mixture_distribution, Independent(wide, 1, validate_args=False), validate_args=False)


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
