"""The public interface of m2distill; docs/api.md has an example of each name.

Importing this package imports nothing else and has no side effects. A name is imported when it is first used, so
training works without a simulator, and serving without h5py.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m2distill._functions import collect, evaluate, load_demos
    from m2distill_policy.cameras import Camera, read_cameras
    from m2distill_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from m2distill_policy.control.inference import InferencePolicy
    from m2distill_policy.control.session import PolicySession
    from m2distill_policy.errors import UserError
    from m2distill_policy.spec import PolicySpec
    from m2distill_sim.libero_env import LiberoEnv
    from m2distill_training import presets
    from m2distill_training.config import TrainConfig
    from m2distill_training.data.libero.reader import open_libero
    from m2distill_training.engine.train import train
    from m2distill_training.evaluation.compare import compare
    from m2distill_training.report import write_report as report
    from m2distill_training.strategies import Samples, Strategy, register_strategy

    __version__: str

__all__ = [
    "Camera",
    "Checkpoint",
    "InferencePolicy",
    "LiberoEnv",
    "PolicySession",
    "PolicySpec",
    "Samples",
    "Strategy",
    "TrainConfig",
    "UserError",
    "__version__",
    "collect",
    "compare",
    "evaluate",
    "load_checkpoint",
    "load_demos",
    "open_libero",
    "presets",
    "read_cameras",
    "register_strategy",
    "report",
    "save_checkpoint",
    "train",
]

_PLACES = {
    "Camera": "m2distill_policy.cameras",
    "Checkpoint": "m2distill_policy.checkpoint",
    "InferencePolicy": "m2distill_policy.control.inference",
    "LiberoEnv": "m2distill_sim.libero_env",
    "PolicySession": "m2distill_policy.control.session",
    "PolicySpec": "m2distill_policy.spec",
    "Samples": "m2distill_training.strategies.base",
    "Strategy": "m2distill_training.strategies.base",
    "TrainConfig": "m2distill_training.config",
    "UserError": "m2distill_policy.errors",
    "collect": "m2distill._functions",
    "compare": "m2distill_training.evaluation.compare",
    "evaluate": "m2distill._functions",
    "load_checkpoint": "m2distill_policy.checkpoint",
    "load_demos": "m2distill._functions",
    "open_libero": "m2distill_training.data.libero.reader",
    "presets": "m2distill_training.presets:",
    "read_cameras": "m2distill_policy.cameras",
    "register_strategy": "m2distill_training.strategies.registry",
    "report": "m2distill_training.report:write_report",
    "save_checkpoint": "m2distill_policy.checkpoint",
    "train": "m2distill_training.engine.train",
}  # name -> module, or module:name of it there, or "module:" for the module itself


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("m2distill")
    if name not in _PLACES:
        raise AttributeError(f"module 'm2distill' has no attribute {name!r}")
    from importlib import import_module

    module_name, colon, attribute = _PLACES[name].partition(":")
    module = import_module(module_name)
    value = getattr(module, attribute or name) if attribute or not colon else module
    globals()[name] = value  # the next use is a plain look-up
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
