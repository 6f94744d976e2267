"""The network. Read policy.py first; config.py holds every size and the presets `libero` and `small`."""

from m2distill_policy.models.config import ModelConfig, StageConfig, libero, small
from m2distill_policy.models.policy import Batch, Policy, PolicyOutput

PRESETS = {"libero": libero, "small": small}

__all__ = ["PRESETS", "Batch", "ModelConfig", "Policy", "PolicyOutput", "StageConfig", "libero", "small"]
