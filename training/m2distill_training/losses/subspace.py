"""Losses of the strategy spread. Pure functions of tensors.

Letters: B batch, T steps, D token width, R rank, N Monte-Carlo samples, A action.
"""

import math

import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily

from m2distill_training.losses.distill import full


def subspace(token_BTD: Tensor, rank: int) -> Tensor:
    """Return an orthonormal basis (D, R) of the subspace that holds most of a token, without gradient.

    It is that of the first `rank` right singular vectors of the tokens (B T, D). Vectors whose singular value is below
    a thousandth of the largest are left out: numerical noise decides their direction.
    """
    rows = full(token_BTD.detach()).flatten(0, 1)
    with torch.autocast(rows.device.type, enabled=False):
        values, vectors = torch.linalg.eigh(rows.mT @ rows)  # ascending; the squares of the singular values
    kept = (values >= 1e-6 * values[-1]).sum().clamp(1, rank)
    return vectors[:, -int(kept) :]


def subspace_distance(student_BTD: Tensor, teacher_BTD: Tensor, rank: int, size: Tensor) -> Tensor:
    """Return the squared distance between tokens within the subspaces of student and teacher, divided by `size`.

    With P the projection onto a subspace, it is the mean of |P_student (s - t)|^2 and |P_teacher (s - t)|^2, summed
    over D, then the mean over B and T: a Frobenius norm, symmetric in both. It is 0 only if s = t in both subspaces. No
    gradient reaches the teacher or passes through a basis, whose derivative is unbounded if singular values are close.
    """
    gap = (full(student_BTD) - full(teacher_BTD.detach())).flatten(0, 1)
    bases = [subspace(token, rank) for token in (student_BTD, teacher_BTD)]
    with torch.autocast(gap.device.type, enabled=False):
        parts = [(gap @ basis).square().sum(-1).mean() for basis in bases]
        return (parts[0] + parts[1]) / 2 / size.detach()


def confident_policy_kl(
    student: MixtureSameFamily, teacher: MixtureSameFamily, action_NBTA: Tensor, share: float
) -> Tensor:
    """Return the mean of log p_t - log p_s over the actions that the teacher finds most likely, mean over B and T.

    Of the N actions per sample and time step, the `share` with the largest density are used, at least one. With share
    1 it is policy_kl. It is no divergence otherwise, and can be negative.
    """
    with torch.no_grad():
        teacher_NBT = teacher.log_prob(action_NBTA)
        kept = teacher_NBT.topk(math.ceil(share * len(action_NBTA)), dim=0).indices
    gap_NBT = teacher_NBT - student.log_prob(action_NBTA)
    return gap_NBT.gather(0, kept).mean()
