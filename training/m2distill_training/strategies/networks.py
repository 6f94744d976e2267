"""Networks: `decoders` whose encoders of views, joints and gripper are also their own.

A later stage copies the encoders, the transformer and the mixture head that suit the new task best, and learns the
copy. Only the projection of the text, which chooses, stays that of the first stage. So a task can be learned that looks
like none before. It costs the encoders' passes in each gradient step, and a whole network per stage.
"""

import torch
from torch import Tensor

from m2distill_policy.models import Policy
from m2distill_training.strategies.base import Samples
from m2distill_training.strategies.decoders import Decoders


class Networks(Decoders):
    """Behaviour cloning of one more network per stage."""

    own_encoders = True

    def tokens(self, policy: Policy, decoder: int, samples: Samples) -> Tensor:
        """Return the tokens (B, T, N, D) of samples for a decoder of the policy: from its own encoders."""
        found = policy.encode_other(samples.inputs, decoder) | policy.encode_images(samples.inputs, decoder)
        return torch.stack(tuple(found.values()), 2)
