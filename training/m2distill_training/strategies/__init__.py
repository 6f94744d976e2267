"""Strategies: how a stage learns without losing the earlier ones.

A strategy is a loss and what it keeps from stage to stage. base.py holds the interface, registry.py finds a strategy
by its name, configs.py holds the hyper-parameters of the built-in ones. Importing this package imports no torch.
"""

from typing import TYPE_CHECKING, Any

from m2distill_training.strategies.registry import find_strategy, make_strategy, register_strategy, strategy_names

if TYPE_CHECKING:
    from m2distill_training.strategies.base import Samples, Strategy

__all__ = ["Samples", "Strategy", "find_strategy", "make_strategy", "register_strategy", "strategy_names"]


def __getattr__(name: str) -> Any:
    if name in ("Samples", "Strategy"):
        from m2distill_training.strategies import base

        return getattr(base, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
