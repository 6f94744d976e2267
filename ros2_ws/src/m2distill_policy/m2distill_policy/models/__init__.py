"""The network. Read policy.py first; config.py holds every size and the presets `libero` and `small`.

torch is imported when a name of policy.py is first used, so that reading a configuration does not pay for it.
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
