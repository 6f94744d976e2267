"""The strategies by name: built-in ones, registered ones, entry points, and `module:Class`.

A name is resolved in this order:

1. a name given to `register_strategy`, as the built-in strategies are below;
2. an entry point of the group `m2distill.strategies` in an installed package;
3. `module:Class`, imported from the current folder or PYTHONPATH.

This module imports no torch; a strategy's module is imported when the strategy is used.
"""

import contextlib
import dataclasses
import importlib
import inspect
import os
import re
import sys
import traceback
import typing
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeVar, overload

from m2distill_policy.errors import UserError, unknown_name
from m2distill_training.strategies.configs import (
    AverageConfig,
    DistillConfig,
    EwcConfig,
    NoConfig,
    PackNetConfig,
    PerturbConfig,
    SpreadConfig,
    option_prefix,
)
from m2distill_training.utils.checks import ConfigError
from m2distill_training.utils.dataclass_json import has_default, is_readable, read_dataclass

if TYPE_CHECKING:
    from m2distill_training.config import TrainConfig
    from m2distill_training.strategies.base import Strategy

GROUP = "m2distill.strategies"
METHODS = ("begin_task", "begin_phase", "loss", "update", "end_task")
HOOKS = ("measured_losses", "take_gradient_norms", "log_values", "saved_weights")  # which few strategies define
_Class = TypeVar("_Class", bound=type)


@dataclasses.dataclass(frozen=True)
class _Entry:
    target: "str | type[Strategy]"  # the class, or where it is: "module:Class"
    config: type | None  # its configuration class, if known without an import


_entries: dict[str, _Entry] = {}


@overload
def register_strategy(name: str) -> Callable[[_Class], _Class]: ...
@overload
def register_strategy(name: str, target: "str | type[Strategy]", config: type | None = None) -> None: ...
def register_strategy(name: str, target: Any = None, config: type | None = None) -> Any:
    """Register a strategy in this process; with the name alone, a class decorator.

    Args:
        name: Name for `--strategy`, in run folders and reports: letters, digits, "_", "-" and ".".
        target: The class, or "module:Class" to import it when it is used.
        config: The class of its hyper-parameters, if it is to be known without an import.

    Raises:
        ConfigError: The name is malformed or belongs to another strategy.
    """
    if target is None:

        def decorate(cls: _Class) -> _Class:
            register_strategy(name, cls)
            return cls

        return decorate
    if not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(f"strategy name {name!r} is malformed; use letters, digits, '_', '-' and '.'")
    known = _entries.get(name)
    if known is not None and _place(known.target) != _place(target):
        raise ConfigError(f"strategy {name!r} is registered as {_place(known.target)} already; choose another name")
    _entries[name] = _Entry(target, config)
    return None


for _name, _target, _config in (
    ("finetune", "finetune:FineTune", NoConfig),
    ("er", "er:ExperienceReplay", NoConfig),
    ("ewc", "ewc:Ewc", EwcConfig),
    ("packnet", "packnet:PackNet", PackNetConfig),
    ("m2distill", "m2distill:M2Distill", DistillConfig),
    ("relabel", "relabel:Relabel", DistillConfig),
    ("recall", "recall:Recall", DistillConfig),
    ("stored", "stored:Stored", DistillConfig),
    ("spread", "spread:Spread", SpreadConfig),
    ("latent_replay", "latent_replay:LatentReplay", DistillConfig),
    ("latent_recall", "latent_recall:LatentRecall", DistillConfig),
    ("perturb", "perturb:Perturb", PerturbConfig),
    ("latent_perturb", "latent_perturb:LatentPerturb", PerturbConfig),
    ("average", "average:Average", AverageConfig),
    ("decoders", "decoders:Decoders", NoConfig),
    ("networks", "networks:Networks", NoConfig),
    ("multitask", "multitask:MultiTask", NoConfig),
):
    register_strategy(_name, f"m2distill_training.strategies.{_target}", _config)
BUILT_IN = tuple(_entries)


def strategy_names() -> tuple[str, ...]:
    """Return the names of all registered strategies and entry points."""
    return tuple(dict.fromkeys((*_entries, *(point.name for point in entry_points(group=GROUP)))))


def find_strategy(name: str) -> "type[Strategy]":
    """Return the class of a strategy. Raises ConfigError, in one line that names the place and the remedy."""
    target, place = _find(name)
    if isinstance(target, str):
        target = _load(name, target, place)
    _check_class(place, target)
    return target


def config_class(name: str) -> type:
    """Return the dataclass of a strategy's hyper-parameters. Raises ConfigError."""
    entry = _entries.get(name)
    return entry.config if entry is not None and entry.config is not None else find_strategy(name).Config


def config_values(name: str, preset: str, **values: Any) -> Any:
    """Return the hyper-parameters of strategy `name` for a preset, with some `values` replaced. Raises ConfigError."""
    cls: Any = config_class(name)
    with config_errors(name):
        found = cls.for_preset(preset) if hasattr(cls, "for_preset") else cls()
        if not isinstance(found, cls):
            raise ConfigError(f"strategy {name}: {cls.__name__}.for_preset returned {found!r:.80}")
        for key in values:
            check_hyperparameter(name, key)
        return dataclasses.replace(found, **values)


def read_config(name: str, value: Any, where: str) -> Any:
    """Return the hyper-parameters of strategy `name` from JSON values; missing ones have their defaults."""
    cls = config_class(name)
    with config_errors(name):
        return read_dataclass(cls, value, where)


def check_hyperparameter(strategy: str, key: str) -> None:
    """Raise ConfigError unless `key` is a hyper-parameter of the strategy."""
    fields = [field.name for field in dataclasses.fields(config_class(strategy))]
    if not fields:
        raise ConfigError(f"strategy {strategy} has no hyper-parameters, got {key!r}; leave it out")
    if key not in fields:
        raise ConfigError(unknown_name(f"hyper-parameter of {strategy}", key, fields))


def check_options(strategy: str, options: "list[str]") -> None:
    """Raise ConfigError for an option `--prefix.key` that is meant for a strategy and does not belong to this one."""
    prefix = option_prefix(config_class(strategy))
    owners: dict[str, list[str]] = {}
    for name, entry in _entries.items():
        if entry.config not in (None, NoConfig):
            owners.setdefault(option_prefix(entry.config), []).append(name)
    for option in options:
        match = re.fullmatch(r"--([\w-]+)\.([\w-]+)(=.*)?", option, re.DOTALL)
        if match is None:
            continue
        group, key = match[1], match[2].replace("-", "_")
        if group == prefix:
            check_hyperparameter(strategy, key)
        elif group in owners:
            raise ConfigError(
                f"--{group}.{match[2]} is an option of the strategy {' and '.join(owners[group])}, this is {strategy}; "
                f"leave it out, or give --strategy {owners[group][0]}"
            )


def make_strategy(config: "TrainConfig") -> "Strategy":
    """Return a new strategy object for one stage. Raises ConfigError."""
    cls = find_strategy(config.strategy)
    strategy = cls(config.strategy_config)
    if not hasattr(strategy, "memory") or not hasattr(strategy, "phases"):
        raise ConfigError(
            f"strategy {config.strategy}: {_place(cls)}.__init__ does not call super().__init__(config); add that call"
        )
    return strategy


def _place(target: "str | type") -> str:
    return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"


def _find(name: str) -> "tuple[str | type[Strategy], str]":
    """Return the class or "module:Class", and the words that name the strategy in a message."""
    if name in _entries:
        target = _entries[name].target
        return target, f"strategy {name!r} ({_place(target)})"
    for point in entry_points(group=GROUP):
        if point.name == name:
            return point.value, f"strategy {name!r} (entry point {point.value})"
    if ":" in name:
        return name, f"strategy {name!r}"
    raise ConfigError(
        f"{unknown_name('strategy', name, strategy_names())}; a strategy of your own is --strategy module:Class"
    )


def _load(name: str, target: str, place: str) -> Any:
    module_name, _, class_name = target.partition(":")
    if not re.fullmatch(r"[\w.]+", module_name) or not class_name.isidentifier():
        raise ConfigError(f"{place} is malformed; expected module:Class, for example my_module:MyStrategy")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # last, so that a file there never replaces a library
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{place}: there is no module {error.name!r} in {os.getcwd()} or on PYTHONPATH; run the command "
                f"in the folder that holds it, or add that folder to PYTHONPATH"
            ) from None
        raise _import_failed(place, module_name, error) from None
    except Exception as error:  # whatever the module does when it is imported
        raise _import_failed(place, module_name, error) from None
    if not hasattr(module, class_name):
        options = [
            key for key, value in vars(module).items() if _is_strategy(value) and value.__module__ == module_name
        ]
        if not options:
            raise ConfigError(f"{place}: {module.__file__} defines no strategy; derive a class from m2distill.Strategy")
        raise ConfigError(f"{unknown_name(f'strategy of {module_name}', class_name, options)}; see {module.__file__}")
    return getattr(module, class_name)


def _import_failed(place: str, module: str, error: Exception) -> ConfigError:
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}"
    else:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename}:{last.lineno}"
    reason = " ".join(str(error).split())
    return ConfigError(
        f"{place}: module {module} cannot be imported: {type(error).__name__}: {reason:.200} at {where}; "
        "correct it there"
    )


def _is_strategy(value: Any) -> bool:
    from m2distill_training.strategies.base import Strategy

    return isinstance(value, type) and issubclass(value, Strategy)


def _check_class(place: str, cls: Any) -> None:
    """Raise ConfigError unless `cls` is a strategy that can be made and whose hyper-parameters can be stored."""
    if not _is_strategy(cls):
        what = "a class" if isinstance(cls, type) else f"{type(cls).__name__}, no class"
        missing = [name for name in METHODS if not callable(getattr(cls, name, None))]
        lacks = f" and lacks {', '.join(missing)}" if missing else ""
        raise ConfigError(f"{place} is {what} that is no Strategy{lacks}; derive it from m2distill.Strategy")
    if inspect.isabstract(cls):
        raise ConfigError(f"{place} lacks {', '.join(sorted(cls.__abstractmethods__))}; define it in the class")
    for name in (*METHODS, *HOOKS):
        if not callable(getattr(cls, name)):
            raise ConfigError(f"{place}: {name} is no method; define it, or remove it to inherit Strategy's")
    config = cls.Config
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise ConfigError(f"{place}: Config is {config!r:.80}, expected a frozen dataclass of hyper-parameters")
    if not config.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise ConfigError(f"{place}: {config.__name__} is not frozen; declare it with @dataclass(frozen=True)")
    try:
        hints = typing.get_type_hints(config)
    except Exception as error:  # an annotation that names nothing
        raise ConfigError(f"{place}: the annotations of {config.__name__} cannot be resolved ({error})") from None
    for field in dataclasses.fields(config):
        if not has_default(field):
            raise ConfigError(f"{place}: {config.__name__}.{field.name} has no default; give it one")
        if not is_readable(hints[field.name]):
            raise ConfigError(
                f"{place}: {config.__name__}.{field.name} has type {hints[field.name]}, which config.json cannot hold; "
                "use bool, int, float, str, a Literal, tuple[T, ...] or T | None"
            )


@contextlib.contextmanager
def config_errors(name: str) -> typing.Iterator[None]:
    """Turn what a configuration's own checks raise into a ConfigError that names the strategy."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"hyper-parameters of strategy {name}: {reason}") from None
