"""Checks of configuration values. Each raises ConfigError with the name, the value and what is allowed."""

import math
from collections.abc import Iterable

from m2distill_policy.errors import UserError, unknown_name


class ConfigError(UserError):
    """A configuration value is not allowed."""


def require_one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raise ConfigError unless `value` is one of `allowed`; the message suggests the nearest one."""
    if value not in (options := tuple(allowed)):
        raise ConfigError(unknown_name(name, value, options))


def require_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise ConfigError unless `value` is finite and `low <= value <= high`."""
    if not (math.isfinite(value) and low <= value <= high):
        limit = f"{low} to {high}" if math.isfinite(high) else f"at least {low}"
        raise ConfigError(f"{name} is {value}, allowed {limit}")
