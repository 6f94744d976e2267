"""Gaussian mixture head over the action, LIBERO's GMMHead."""

from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn import functional as F

from m2distill_policy.action import ACTION_WIDTH
from m2distill_policy.models.config import ModelConfig


class MixtureHead(nn.Module):
    """MLP that maps a token to a mixture of K diagonal Gaussians over the action."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        hidden = config.mixture_hidden
        self.shared = nn.Sequential(
            nn.Linear(config.width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden)
        )
        self.mean = nn.Linear(hidden, config.modes * ACTION_WIDTH)
        self.std = nn.Linear(hidden, config.modes * ACTION_WIDTH)
        self.logits = nn.Linear(hidden, config.modes)
        self.modes, self.min_std = config.modes, config.min_std

    def forward(self, x: Tensor) -> MixtureSameFamily:
        """(..., D) -> a mixture with batch shape (...), K components and events of 7 action units."""
        return mixture(*self.statistics(x))

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., D) -> logits (..., K), means and standard deviations (..., K, A)."""
        h = self.shared(x)
        mean = self.mean(h).tanh().unflatten(-1, (self.modes, ACTION_WIDTH))
        std = F.softplus(self.std(h)).unflatten(-1, (self.modes, ACTION_WIDTH)) + self.min_std
        return self.logits(h), mean, std


def mixture(logits: Tensor, mean: Tensor, std: Tensor) -> MixtureSameFamily:
    """Return the mixture of logits (..., K), means and standard deviations (..., K, A)."""
    # Validation would synchronise a GPU every step; callers check that the numbers are finite.
    return MixtureSameFamily(
        Categorical(logits=logits, validate_args=False),
        Independent(Normal(mean, std, validate_args=False), 1, validate_args=False),
        validate_args=False,
    )
