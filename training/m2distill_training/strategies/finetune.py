"""Plain fine-tuning: what forgets. The control beside which M2Distill is shown."""

from torch import Tensor

from m2distill_policy.models import Policy
from m2distill_training.losses.bc import bc_loss
from m2distill_training.strategies.base import Samples


class FineTune:
    uses_replay = False

    def begin_task(self, previous: Policy | None) -> None:
        pass

    def loss(self, policy: Policy, samples: Samples) -> dict[str, Tensor]:
        bc = bc_loss(policy(samples.inputs).dist, samples.action)
        return {"loss": bc, "bc": bc}
