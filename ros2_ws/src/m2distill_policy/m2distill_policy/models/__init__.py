"""Models: the policy network. Read policy.py first.

    policy.py         Policy: observations and a sentence embedding -> mixture over actions
    config.py         every size of the network, and the presets `libero` and `small`
    image_encoder.py  one camera image -> one token: ResNet with FiLM, spatial softmax
    transformer.py    temporal transformer, causal between steps
    mixture_head.py   Gaussian mixture over the action
    batch.py          numpy observations -> input tensors
    optimize.py       faster inference with the same function

Invariant: a PolicySpec and a ModelConfig determine the shape of every weight. Nothing here imports the session or ROS.
The sizes are imported without torch, the network when it is first used.
"""

from typing import TYPE_CHECKING, Any

from m2distill_policy.models.config import ModelConfig, ResNetStage, libero, small

if TYPE_CHECKING:
    from m2distill_policy.models.policy import Batch, Policy, PolicyOutput

PRESETS = {"libero": libero, "small": small}

__all__ = ["PRESETS", "Batch", "ModelConfig", "Policy", "PolicyOutput", "ResNetStage", "libero", "small"]


def __getattr__(name: str) -> Any:
    if name in ("Batch", "Policy", "PolicyOutput"):
        from m2distill_policy.models import policy

        return getattr(policy, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
