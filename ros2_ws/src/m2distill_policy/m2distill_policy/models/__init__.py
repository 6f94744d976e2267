"""The network. Read policy.py first; config.py holds every size and the presets `libero` and `small`.

The sizes are imported without torch, the network when it is first used.
"""

from typing import TYPE_CHECKING, Any

from m2distill_policy.models.config import ModelConfig, StageConfig, libero, small

if TYPE_CHECKING:
    from m2distill_policy.models.policy import Batch, Policy, PolicyOutput

PRESETS = {"libero": libero, "small": small}

__all__ = ["PRESETS", "Batch", "ModelConfig", "Policy", "PolicyOutput", "StageConfig", "libero", "small"]


def __getattr__(name: str) -> Any:
    if name in ("Batch", "Policy", "PolicyOutput"):
        from m2distill_policy.models import policy

        return getattr(policy, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
