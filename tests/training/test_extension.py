"""Strategies and cameras of files outside the packages: each test writes them into its own folder."""

import dataclasses
import json
import os
import re
import sys

os.environ.setdefault("MUJOCO_GL", "egl")

import pytest

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import UserError
from m2distill_training.cli import main
from m2distill_training.config import ConfigError, TrainConfig
from m2distill_training.engine.train import train
from m2distill_training.experiments.study import study
from m2distill_training.experiments.study_plan import make_plan
from m2distill_training.presets import debug, libero, preset, small
from m2distill_training.runs.records import RunError, read_json
from m2distill_training.runs.run_folder import RunFolder, read_run
from m2distill_training.strategies import Strategy, find_strategy, make_strategy, register_strategy, registry

PROXIMAL = '''
from dataclasses import dataclass

from m2distill_training.strategies import Strategy


@dataclass(frozen=True)
class ProximalConfig:
    """Distance to the previous weights."""

    weight: float = 0.5  # weight of the squared distance
    norm: str = "l2"  # the distance

    def __post_init__(self):
        if self.weight < 0:
            raise ValueError(f"weight is {self.weight}, allowed at least 0")


class Proximal(Strategy):
    Config = ProximalConfig
    uses_replay = True

    def begin_task(self, policy, previous):
        self.anchor = None if previous is None else [p.detach().clone() for p in previous.parameters()]

    def loss(self, policy, samples):
        losses = super().loss(policy, samples)
        if self.anchor is None:
            return losses
        distance = sum((p - a).square().sum() for p, a in zip(policy.parameters(), self.anchor))
        return {**losses, "loss": losses["bc"] + self.config.weight * distance, "distance": distance}
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, from which modules are imported; what a test imports or registers is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    before, entries = set(sys.modules), dict(registry._entries)
    yield tmp_path
    registry._entries.clear()
    registry._entries.update(entries)
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def plugin(folder):
    (folder / "plugin.py").write_text(PROXIMAL)
    return "plugin:Proximal"


@pytest.fixture
def files(libero_file):
    return [libero_file("a", instruction="pick up the milk"), libero_file("b", instruction="open the drawer", seed=1)]


def argv(files, *options: str, out: str = "run") -> list[str]:
    return ["train", "--preset", "debug", *options, "--data", *map(str, files), "--out", out]


@pytest.mark.slow
def test_a_strategy_of_a_module_in_the_current_folder_trains_and_resumes(plugin, files, folder, capsys):
    command = argv(files, "--strategy", plugin, "--proximal.weight", "0.25")
    assert main.run(command) == 0
    config = read_json(folder / "run" / "config.json")
    assert '"schema": 1' in (folder / "run" / "config.json").read_text()
    assert (config["strategy"], config["strategy_config"]) == (plugin, {"weight": 0.25, "norm": "l2"})
    run = RunFolder(folder / "run")
    assert load_checkpoint(run.checkpoint(2)).metrics["strategy"] == plugin
    assert run.metrics()[-1]["distance"] > 0
    assert main.run([*command, "--resume"]) == 0
    capsys.readouterr()
    assert main.run([*argv(files, "--strategy", plugin), "--resume"]) == 2
    assert "strategy_config.weight was 0.25, now 0.5" in capsys.readouterr().err


def test_hyper_parameters_are_options_with_help(plugin, capsys):
    with pytest.raises(SystemExit) as end:
        sys.exit(main.run(["train", "--strategy", plugin, "--help"]))
    page = " ".join(capsys.readouterr().out.split())
    assert not end.value.code
    assert "--proximal.weight X weight of the squared distance (default: 0.5)" in page
    assert "--distill.image" not in page


def test_a_strategy_of_an_entry_point_has_a_name(files, folder, monkeypatch):
    (folder / "site" / "near-1.0.dist-info").mkdir(parents=True)
    (folder / "site" / "near_plugin.py").write_text(PROXIMAL)
    (folder / "site" / "near-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: near\nVersion: 1.0\n"
    )
    points = "[m2distill.strategies]\nproximal = near_plugin:Proximal\n"
    (folder / "site" / "near-1.0.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(folder / "site"))
    assert main.run(argv(files[:1], "--strategy", "proximal", "--proximal.norm", "l1")) == 0
    assert read_json(folder / "run" / "config.json")["strategy_config"] == {"weight": 0.5, "norm": "l1"}
    assert "proximal" in registry.strategy_names()


def test_a_strategy_registered_in_a_program(files, folder):
    @dataclasses.dataclass(frozen=True)
    class TwiceConfig:
        times: int = 2

        @classmethod
        def for_preset(cls, name):
            return cls(times=3) if name == "libero" else cls()

    @register_strategy("twice")
    class Twice(Strategy):
        Config = TwiceConfig

        def loss(self, policy, samples):
            losses = super().loss(policy, samples)
            return {**losses, "loss": self.config.times * losses["bc"]}

    assert find_strategy("twice") is Twice
    assert libero().with_strategy("twice").strategy_config.times == 3
    run = train(preset("debug", "twice", times=4), files[:1], folder / "run")
    line = run.metrics()[0]
    assert line["loss"] == pytest.approx(4 * line["bc"], rel=1e-6)
    with pytest.raises(ConfigError, match="'twice' is registered as .*Twice already; choose another name"):
        register_strategy("twice", "plugin:Other")
    with pytest.raises(ConfigError, match="'a:b' is malformed"):
        register_strategy("a:b", Twice)


BROKEN = {
    "absent:Mine": ("", "there is no module 'absent' in .* or on PYTHONPATH; run the command in the folder"),
    "mine:Mine": ("import absent_library\n", "cannot be imported: ModuleNotFoundError.*mine.py:1; correct it there"),
    "mine:Other": ("x = 1\n1 / 0\n", r"ZeroDivisionError: division by zero at .*mine.py:2"),
    "mine:A": ("def f(:\n", r"SyntaxError: .* at .*mine.py:1"),
    "mine:B": ("x = 1\n", "mine.py defines no strategy; derive a class from m2distill.Strategy"),
    "mine:Proximl": (PROXIMAL, "unknown strategy of mine 'Proximl'; did you mean 'Proximal'.*mine.py"),
    "mine:ProximalConfig": (
        PROXIMAL,
        "is no Strategy and lacks begin_task, begin_phase, loss, update, end_task",
    ),
    "mine:C": (f"{PROXIMAL}\nC = 3\n", "is int, no class that is no Strategy"),
    "mine:D": (f"{PROXIMAL}\nclass D(Proximal):\n    loss = 3\n", "loss is no method; define it"),
    "mine:J": (f"{PROXIMAL}\nclass J(Proximal):\n    log_values = 3\n", "log_values is no method; define it"),
    "mine:E": (f"{PROXIMAL}\nclass E(Proximal):\n    Config = 3\n", "Config is 3, expected a frozen dataclass"),
    "mine:F": (
        f"{PROXIMAL}\n@dataclass\nclass OpenConfig:\n    a: int = 1\nclass F(Proximal):\n    Config = OpenConfig\n",
        "OpenConfig is not frozen",
    ),
    "mine:G": (
        f"{PROXIMAL}\n@dataclass(frozen=True)\nclass NeedConfig:\n    a: int\n"
        "class G(Proximal):\n    Config = NeedConfig\n",
        "NeedConfig.a has no default; give it one",
    ),
    "mine:H": (
        f"{PROXIMAL}\n@dataclass(frozen=True)\nclass OddConfig:\n    a: dict = None\n"
        "class H(Proximal):\n    Config = OddConfig\n",
        "OddConfig.a has type .*dict.*, which config.json cannot hold",
    ),
    "mine:I": (
        f"{PROXIMAL}\nfrom abc import ABC, abstractmethod\nclass I(Strategy, ABC):\n"
        "    @abstractmethod\n    def weigh(self): ...\n",
        "lacks weigh; define it in the class",
    ),
    "mine:": ("", "is malformed; expected module:Class"),
    "my-mine:X": ("", "is malformed; expected module:Class"),
    "proximal": ("", "unknown strategy 'proximal'.*a strategy of your own is --strategy module:Class"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_strategy_that_cannot_be_used_is_reported_in_one_line(name, files, folder, capsys):
    source, message = BROKEN[name]
    (folder / "mine.py").write_text(source)
    assert main.run(argv(files, "--strategy", name)) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert re.search(message, printed)
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--proximal.wieght", "1"), "unknown hyper-parameter of plugin:Proximal 'wieght'; did you mean 'weight'?"),
        (
            ("--proximal.weight", "-1"),
            "hyper-parameters of strategy plugin:Proximal: weight is -1.0, allowed at least 0",
        ),
        (("--distill.image", "1"), "--distill.image is an option of the strategy m2distill and relabel and recall"),
        (("--proximal.weight", "x"), "--proximal.weight is 'x'"),
    ],
)
def test_a_wrong_hyper_parameter_is_reported_in_one_line(options, message, plugin, files, folder, capsys):
    assert main.run(argv(files, "--strategy", plugin, *options)) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert not (folder / "run").exists()


def test_what_a_strategy_forgets_is_named(plugin, files, folder):
    (folder / "mine.py").write_text(
        "from m2distill_training.strategies import Strategy\n"
        "class NoInit(Strategy):\n    def __init__(self, config):\n        self.config = config\n"
        "class NoLoss(Strategy):\n    def loss(self, policy, samples):\n        return {'bc': samples.action.mean()}\n"
    )
    with pytest.raises(ConfigError, match=r"mine:NoInit.__init__ does not call super\(\).__init__\(config\)"):
        make_strategy(preset("debug", "mine:NoInit"))
    with pytest.raises(ConfigError, match='expected a dict of scalar tensors with the key "loss"'):
        train(preset("debug", "mine:NoLoss"), files[:1], folder / "run")


def test_hyper_parameters_are_kept_between_strategies_that_share_them():
    config = small().with_strategy("m2distill", image=3.0)
    assert config.with_strategy("relabel").strategy_config.image == 3.0
    assert config.with_strategy("er").with_strategy("m2distill").strategy_config == small().strategy_config
    with pytest.raises(ConfigError, match="er has no hyper-parameters, got 'image'"):
        config.with_strategy("er", image=1.0)
    with pytest.raises(ConfigError, match="strategy er takes a NoConfig, got DistillConfig"):
        dataclasses.replace(config, strategy="er")


@pytest.mark.slow
@pytest.mark.sim
def test_a_study_and_its_report_know_a_strategy_of_a_module(plugin, folder):
    values = {"seeds": [0], "suites": [{"suite": "libero_object", "tasks": [0, 1], "demos": 1}], "preset": "debug"}
    values |= {"replay": 1, "first_budget": "2 steps", "budget": "2 steps", "episodes": 1, "max_steps": 2}
    study(folder / "study", make_plan({**values, "strategies": [plugin]}, "plan"), workers=1)
    runs = {run["variant"]: run for run in read_json(folder / "study" / "results.json")["runs"]}
    assert list(runs) == [plugin]
    assert (folder / "study" / "runs" / "plugin.Proximal-0" / "evaluation.json").is_file()
    assert '"schema": 1' in (folder / "study" / "study.json").read_text()
    assert plugin in (folder / "study" / "report.html").read_text()
    other = {**values, "strategies": ["ewc"], "budget": "3 steps"}
    with pytest.raises(UserError, match="variant 'ewc' needs more of the first stage"):
        study(folder / "other", make_plan(other, "plan"), workers=1)


def test_a_configuration_survives_json_and_has_a_schema():
    for config in (debug(), libero(), preset("small", "ewc", weight=3.0), preset("debug", "er")):
        assert TrainConfig.from_json(config.to_json()) == config


def edited(change) -> str:
    data = json.loads(debug().to_json())
    change(data)
    return json.dumps(data)


def test_a_key_added_later_has_its_default():
    assert TrainConfig.from_json(edited(lambda data: data.pop("cameras"))) == debug()
    assert TrainConfig.from_json(edited(lambda data: data["strategy_config"].pop("kl_samples"))) == debug()
    first_keys = {"image": 2.0, "text": 1.0, "extra": 1.0, "policy": 1.0, "kl_samples": 16, "on": "both"}
    old = TrainConfig.from_json(edited(lambda data: data.update(strategy_config=first_keys))).strategy_config
    assert (old.unit, old.balance_every, old.kl_min_std, old.image) == ("token", 0, 0.0, 2.0)
    assert {old.samples_of(term) for term in ("image", "text", "extra", "policy")} == {"both"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("seed"), "config has no seed"),
        (lambda data: data.update(sed=1), "unknown key of config 'sed'; did you mean 'seed'"),
        (lambda data: data["optim"].pop("lr"), "config.optim has no lr"),
        (lambda data: data["optim"].update(lr="fast"), "config.optim.lr is 'fast', expected a number"),
        (lambda data: data["strategy_config"].update(imag=1.0), "unknown key of config.strategy_config 'imag'"),
        (lambda data: data.update(strategy_config=None), "config.strategy_config is None, expected an object"),
        (lambda data: data.update(strategy=3), "strategy is 3, expected a name"),
        (lambda data: data.pop("schema"), "no schema number"),
        (lambda data: data.update(schema=0), "its schema is 0, this version reads 1"),
        (lambda data: data.update(schema=2), r"newer m2distill \(schema 2, this version reads up to 1\); update it"),
    ],
)
def test_anything_else_in_a_configuration_is_an_error(change, message):
    with pytest.raises(UserError, match=message):
        TrainConfig.from_json(edited(change))


def test_a_run_of_a_newer_version_is_named_with_the_remedy(files, folder, capsys):
    run = train(debug(), files[:1], folder / "run")
    path = run.path / "config.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 7'))
    with pytest.raises(RunError, match=r"config.json: made by a newer m2distill \(schema 7.*; update it"):
        read_run(run.path)
    assert main.run(["report", str(run.path)]) == 2
    assert main.run([*argv(files[:1]), "--resume"]) == 2
    assert "run/config.json: made by a newer m2distill" in capsys.readouterr().err
