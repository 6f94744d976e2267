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

import torch
from torch.distributions import MixtureSameFamily


def token_distance(student_BTD: torch.Tensor, teacher_BTD: torch.Tensor) -> torch.Tensor:
    """Squared L2 distance between tokens, mean over B, T and D. No gradient reaches the teacher."""
    return (student_BTD.float() - teacher_BTD.detach().float()).square().mean()


def policy_kl(student: MixtureSameFamily, teacher: MixtureSameFamily, n_samples: int) -> torch.Tensor:
    """KL(teacher || student) in nats, mean over B and T: the Monte-Carlo mean of log p_t - log p_s over N actions
    drawn from the teacher at every (b, t). No gradient through the samples or the teacher."""
    with torch.no_grad():
        action_NBTA = teacher.sample((n_samples,))
        teacher_NBT = teacher.log_prob(action_NBTA)
    return (teacher_NBT - student.log_prob(action_NBTA)).mean()


def reverse_policy_kl(student: MixtureSameFamily, teacher: MixtureSameFamily, n_samples: int) -> torch.Tensor:
    """KL(student || teacher) in nats, mean over B and T, with a gradient to every student parameter.

    A mixture has no reparameterised sample, its components have: N samples are drawn from each of the K modes and
    weighted by the modes' probabilities.
    """
    action_NBTKA = student.component_distribution.rsample((n_samples,))
    action_NKBTA = action_NBTKA.movedim(-2, 1)
    gap_NKBT = student.log_prob(action_NKBTA) - teacher.log_prob(action_NKBTA)
    weight_BTK = student.mixture_distribution.probs
    return (gap_NKBT.movedim(1, -1) * weight_BTK).sum(-1).mean()
