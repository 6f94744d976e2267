"""Plan of a study: what `m2distill study PLAN.yaml` reads. Unknown keys and wrong values are named.

strategies: [er, m2distill, {name: gentle, strategy: m2distill, options: {image: 0.5}}, my_module:MyStrategy]
seeds: [0, 1, 2]
suites: [{suite: libero_object, tasks: [0, 1, 2], demos: 40}, {suite: libero_goal, data: /data/libero_goal}]
preset: small
first_budget: 4000 steps
budget: 1000 steps
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from m2distill_policy.action import DEFAULT_SAMPLING, SAMPLING_MODES
from m2distill_policy.errors import UserError, unknown_name
from m2distill_sim.experts import check_expert
from m2distill_sim.suites import find_task, held_out, suites
from m2distill_training import presets
from m2distill_training.config import TrainConfig
from m2distill_training.engine.protocols import with_protocol
from m2distill_training.evaluation.rollout_specs import ENVIRONMENTS
from m2distill_training.strategies import find_strategy, strategy_names
from m2distill_training.strategies.base import Strategy

FIRST = "first"  # the run that ends after the stage which most others share
VARIANTS: dict[str, tuple[str, dict[str, float]]] = {  # strategy and hyper-parameters; a strategy is its own variant
    "finetune": ("finetune", {}),
    "er": ("er", {}),
    "m2distill": ("m2distill", {}),
    "relabel": ("relabel", {}),
    "multitask": ("multitask", {}),
    "no_image": ("m2distill", {"image": 0.0}),
    "no_text": ("m2distill", {"text": 0.0}),
    "no_extra": ("m2distill", {"extra": 0.0}),
    "no_policy": ("m2distill", {"policy": 0.0}),
}
NAME = re.compile(r"[\w.-]+|[\w.]+:\w+")  # of a folder, or module:Class
Count = Annotated[int, Field(ge=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)  # not strict: YAML has lists for tuples


class Budget(_Model):
    """Length of the training of a stage: "1000 steps" per task that it learns, or "50 epochs"."""

    amount: Count
    unit: Literal["steps", "epochs"]

    def __str__(self) -> str:
        return f"{self.amount} {self.unit}"


def _read_budget(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+) (steps|epochs)", value)):
        return Budget(amount=int(match[1]), unit=match[2])  # type: ignore[arg-type]
    if isinstance(value, Budget) or value is None:
        return value
    raise ValueError(f"{value!r} given, expected a text such as 1000 steps or 50 epochs")


class Variant(_Model):
    """A strategy with hyper-parameters that differ from those of the preset."""

    strategy: str
    name: str = ""  # default: the strategy
    options: dict[str, Any] = {}
    budget: Annotated[Budget | None, BeforeValidator(_read_budget)] = None  # of each further stage; default: the plan's
    overrides: dict[str, Any] = {}  # as the plan's, which come first; a shared first stage has the plan's alone

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, str):
            strategy, options = VARIANTS.get(value, (value, {}))
            return {"strategy": strategy, "name": value, "options": options}
        if isinstance(value, dict) and "strategy" in value:
            return {"name": value["strategy"]} | value
        return value

    @model_validator(mode="after")
    def _check_name(self) -> "Variant":
        if not NAME.fullmatch(self.name) or self.name == FIRST:
            raise ValueError(f"name {self.name!r} cannot name a folder; use letters, digits, '_', '-' and '.'")
        return self

    @property
    def folder(self) -> str:
        """Return the beginning of the names of its run folders: ffmpeg and Windows reject a colon in a path."""
        return self.name.replace(":", ".")

    def run_name(self, seed: int) -> str:
        """Return the name of the folder of a run."""
        return f"{self.folder}-{seed}"

    def load(self) -> type[Strategy]:
        """Return the class of the strategy. Raises UserError."""
        if ":" not in self.strategy and self.strategy not in strategy_names():
            raise UserError(
                f"{unknown_name('variant', self.strategy, tuple(dict.fromkeys((*VARIANTS, *strategy_names()))))}; "
                "a strategy of your own is named module:Class"
            )
        return find_strategy(self.strategy)

    @property
    def shares_first_stage(self) -> bool:
        """Return False if it learns all at once, or needs more of the first stage than a checkpoint holds."""
        return not (self.load().joint or self.load().remembers)


class Comparison(_Model):
    """A comparison of one variant with another, paired over seeds, tasks and starts."""

    baseline: str
    candidate: str
    metrics: tuple[Literal["fwt", "nbt", "auc", "final", "normalised_nbt"], ...] = ("auc", "nbt")


class SuitePlan(_Model):
    """Tasks of one suite, in the order of learning."""

    suite: str
    tasks: tuple[int, ...] = ()  # empty: all
    data: Path | None = None  # folder of HDF5 files, one per task; None: collected from the scripted expert
    demos: Count = 40  # of each task that is collected

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return {"suite": value} if isinstance(value, str) else value

    def numbers(self) -> tuple[int, ...]:
        """Return the numbers of the tasks. Raises UserError."""
        find_task(self.suite, 0)
        numbers = self.tasks or tuple(range(len(suites()[self.suite])))
        for number in numbers:
            find_task(self.suite, number)
        if len(set(numbers)) < max(2, len(numbers)):
            raise UserError(f"tasks {list(numbers)} given, expected at least two and none twice")
        return numbers


class Plan(_Model):
    """A study: every strategy with every seed on every suite."""

    strategies: tuple[Variant, ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    suites: tuple[SuitePlan, ...] = Field(min_length=1)
    assets: str | None = "builtin"  # as for `m2distill evaluate`
    protocol: str = "custom"
    preset: str = "small"
    overrides: dict[str, Any] = {}  # dotted fields of the training configuration, such as optim.lr
    first_budget: Annotated[Budget | None, BeforeValidator(_read_budget)] = (
        None  # of the first stage; default: `budget`
    )
    budget: Annotated[Budget | None, BeforeValidator(_read_budget)] = None  # of each further stage; default: preset's
    replay: Count | None = None  # demonstrations kept of every earlier task; default: that of protocol and preset
    curve_points: Annotated[int, Field(ge=0)] = 0
    episodes: Count = 20  # per task and checkpoint
    episodes_earlier: Count | None = None  # of a task that an earlier stage has learned; default: `episodes`
    starts: Literal["report", "choice"] = "report"
    max_steps: Count = 600
    environments: Count = ENVIRONMENTS  # simulators per process that share a forward pass of the network
    sampling: Literal[SAMPLING_MODES] = DEFAULT_SAMPLING  # type: ignore[valid-type]
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    gpus: Annotated[float, Field(gt=0, le=1)] = 1.0  # part of a GPU that a training takes; smaller parts share one
    threads: Count = 1  # of a training, and CPUs that it takes; the weights depend on it
    comparisons: tuple[Comparison, ...] = ()  # default: of every strategy with the first, in all metrics
    cache: Path | None = None  # folder of decoded frames; default: beside the data

    def check(self) -> None:
        """Raise UserError for what cannot be studied."""
        for names in ([v.folder for v in self.strategies], self.seeds, [s.suite for s in self.suites]):
            if len(set(names)) < len(names):
                raise UserError(f"{', '.join(map(str, names))} given, expected none twice")
        names = [variant.name for variant in self.strategies]
        for name in (name for each in self.comparisons for name in (each.baseline, each.candidate)):
            if name not in names:
                raise UserError(f"comparisons: {unknown_name('strategy', name, names)}")
        held_out(self.episodes, self.starts)
        if (self.episodes_earlier or 0) > self.episodes:
            raise UserError(f"episodes_earlier is {self.episodes_earlier}, expected at most episodes, {self.episodes}")
        for suite in self.suites:
            suite.numbers()
            if suite.data is None:
                check_expert(suite.suite)
            elif not suite.data.is_dir():
                raise UserError(f"data {suite.data} is no folder; name one with a HDF5 file per task")
            self.first_config(suite, self.seeds[0])
            for variant in self.strategies:
                strategy = variant.load()
                self.config(suite, variant, self.seeds[0])
                first, later = self.budgets()
                if strategy.remembers and first != later:
                    raise UserError(
                        f"variant {variant.name!r} needs more of the first stage than the checkpoint that the others "
                        "share, so it learns that stage itself; give first_budget and budget the same value"
                    )

    def budgets(self) -> tuple[Budget, Budget]:
        """Return the budget of the first stage and that of the others. Raises UserError."""
        optim = self._base("finetune", {}).optim
        later = self.budget or Budget(amount=optim.budget, unit=optim.budget_unit)  # type: ignore[arg-type]
        first = self.first_budget or later
        if first.unit != later.unit:
            raise UserError(f"first_budget is {first}, budget {later}; give both in steps or both in epochs")
        return first, later

    def _base(self, strategy: str, options: dict[str, Any]) -> TrainConfig:
        config = with_protocol(presets.preset(self.preset, strategy, **options), self.protocol)
        return with_overrides(config, self.overrides)

    def config(self, suite: SuitePlan, variant: Variant, seed: int) -> TrainConfig:
        """Return the training configuration of a run. Raises UserError."""
        first, later = self.budgets()
        if variant.budget is not None:
            if variant.budget.unit != later.unit:
                raise UserError(f"budget of {variant.name} is {variant.budget}, budget {later}; give both in one unit")
            later = variant.budget
        chosen = with_overrides(self._base(variant.strategy, variant.options), variant.overrides)
        base = self._with_seed(chosen, seed)
        sizes = self.stage_sizes(suite)
        if not variant.load().joint:
            return _with_budget(base, later)
        total = first.amount * sizes[0] + later.amount * sum(sizes[1:])  # as many gradient steps as one after the other
        return _with_budget(base, Budget(amount=max(1, total // sum(sizes)), unit=later.unit))

    def first_config(self, suite: SuitePlan, seed: int) -> TrainConfig:
        """Return the configuration of the run that learns the shared first stage. Raises UserError."""
        base = self._with_seed(self._base("finetune", {}), seed)
        protocol = dataclasses.replace(
            base.protocol, stage_tasks=(self.stage_sizes(suite)[0],), stage_demos=base.protocol.stage_demos[:1]
        )
        return _with_budget(dataclasses.replace(base, protocol=protocol), self.budgets()[0])

    def stage_sizes(self, suite: SuitePlan) -> tuple[int, ...]:
        """Return the number of tasks of each stage. Raises UserError."""
        numbers = suite.numbers()
        sizes = self._base("finetune", {}).protocol.stage_tasks or (1,) * len(numbers)
        if sum(sizes) != len(numbers):
            raise UserError(
                f"the protocol learns {sum(sizes)} tasks in stages of {list(sizes)}, {suite.suite} has "
                f"{len(numbers)} here; change tasks, protocol or protocol.stage_tasks"
            )
        return sizes

    def _with_seed(self, base: TrainConfig, seed: int) -> TrainConfig:
        replay = base.replay
        if self.replay is not None:
            replay = dataclasses.replace(replay, demos_per_task=self.replay)
        return dataclasses.replace(base, seed=seed, curve_points=self.curve_points, replay=replay)

    def settings(self, suite: SuitePlan, device: str) -> dict[str, Any]:
        """Return what all runs of a suite have in common: the content of study.json."""
        shared = self.model_dump(mode="json", exclude={"strategies", "seeds", "suites", "comparisons", "gpus", "cache"})
        first, later = self.budgets()
        return {
            **shared,
            "suite": suite.suite,
            "tasks": list(suite.numbers()),
            "demos": suite.demos if suite.data is None else None,
            "data": None if suite.data is None else str(suite.data.absolute()),
            "first_budget": str(first),
            "budget": str(later),
            "replay": self._with_seed(self._base("finetune", {}), 0).replay.demos_per_task,
            "device": device,
        }


def _with_budget(config: TrainConfig, budget: Budget) -> TrainConfig:
    optim = dataclasses.replace(config.optim, budget=budget.amount, budget_unit=budget.unit)
    return dataclasses.replace(config, optim=optim)


OWN_KEYS = {  # fields of the training configuration that the plan sets by keys of its own
    "curve_points": "curve_points",
    "optim.budget": "budget",
    "optim.budget_unit": "budget",
    "preset": "preset",
    "protocol.name": "protocol",
    "replay.demos_per_task": "replay",
    "seed": "seeds",
    "strategy": "strategies",
}


def with_overrides(config: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """Return a configuration with other values of dotted fields. Raises UserError for an unknown field or value."""
    if not values:
        return config
    data = json.loads(config.to_json())
    for name, value in values.items():
        if name in OWN_KEYS:
            raise UserError(f"overrides: {name} is set by the key {OWN_KEYS[name]} of the plan; use that")
        *groups, last = name.split(".")
        place = data
        for key in groups:
            place = place.get(key) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place or name == "schema":
            choices = [field for field in _fields(data) if field not in (*OWN_KEYS, "schema")]
            raise UserError(unknown_name("override", name, choices))
        place[last] = value
    try:
        return TrainConfig.from_json(json.dumps(data))
    except UserError as error:
        raise UserError(f"overrides: {error}") from None


def _fields(data: dict, prefix: str = "") -> list[str]:
    names: list[str] = []
    for key, value in data.items():
        names += _fields(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return names


def read_plan(path: Path) -> Plan:
    """Return the plan in a YAML file. Raises UserError, with the place of the first mistake."""
    try:
        value = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"there is no plan {path}; name a YAML file, see docs/cluster.md") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split()):.200}; correct it there") from None
    return make_plan(value, str(path))


def make_plan(value: Any, where: str) -> Plan:
    """Return the plan of Python values. Raises UserError that names `where` and the key."""
    try:
        return Plan.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        models: dict[str, type[_Model]] = {"strategies": Variant, "suites": SuitePlan}
        fields = models.get(str(first["loc"][0]) if len(first["loc"]) > 1 else "", Plan).model_fields
        raise UserError(f"{where}: {unknown_name('key', place, fields)}") from None
    reason = first["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    raise UserError(f"{where}: {place}: {reason}" if place else f"{where}: {reason}") from None
