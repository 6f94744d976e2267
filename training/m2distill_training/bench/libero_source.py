"""LIBERO's own policy, built by its own code: the reference of inference speed and of the parity tests."""

import sys
from pathlib import Path
from typing import Any

from m2distill_policy.errors import UserError
from m2distill_policy.language.torchvision_workaround import patch_torchvision
from m2distill_training.data.libero.libero_checkpoint import CAMERAS


def libero_policy(checkout: Path) -> Any:
    """Return BCTransformerPolicy with LIBERO's default configuration, on the CPU, in evaluation mode.

    Its configuration needs hydra-core. `checkout` is a clone of github.com/Lifelong-Robot-Learning/LIBERO, because the
    PyPI package lacks libero/lifelong/models/modules. Raises UserError.
    """
    if not (checkout / "libero/lifelong/models/bc_transformer_policy.py").is_file():
        raise UserError(f"{checkout} is no clone of LIBERO: it lacks libero/lifelong/models/bc_transformer_policy.py")
    sys.path.insert(0, str(checkout))
    import libero

    libero.__path__ = [str(checkout / "libero")]  # where the PyPI package is installed too, it would win over the clone
    patch_torchvision()
    import yaml
    from easydict import EasyDict
    from hydra import compose, initialize_config_dir
    from libero.lifelong.models.bc_transformer_policy import BCTransformerPolicy
    from omegaconf import OmegaConf

    with initialize_config_dir(str(checkout / "libero" / "configs"), version_base=None):
        cfg = EasyDict(yaml.safe_load(OmegaConf.to_yaml(compose("config"))))
    cfg.device = "cpu"
    shapes = {**dict.fromkeys(CAMERAS, (3, 128, 128)), "gripper_states": (2,), "joint_states": (7,)}
    return BCTransformerPolicy(cfg, {"all_shapes": shapes, "ac_dim": 7}).eval()
