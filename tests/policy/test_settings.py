"""Each setting has one source: launch options and node parameters share their defaults and descriptions."""

import ast
import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from m2distill_policy.bringup import launch_config, parameters
from m2distill_policy.bringup.launch_config import (
    LAUNCH_OVERRIDES,
    EndLaunchConfig,
    PolicyLaunchConfig,
    SimLaunchConfig,
    SystemLaunchConfig,
    ViewLaunchConfig,
)
from m2distill_policy.bringup.parameters import (
    POLICY_GROUPS,
    ArmParameters,
    DashboardParameters,
    RecorderParameters,
    SimParameters,
    TeleopParameters,
)
from m2distill_policy.control import teleop
from m2distill_policy.safety import limits, output_parameters

ROOT = Path(__file__).parents[2]
NODE_OF = {
    PolicyLaunchConfig: (ArmParameters, *POLICY_GROUPS, RecorderParameters, DashboardParameters),
    SimLaunchConfig: (SimParameters,),
}
LAUNCH_ONLY = {"dashboard", "namespace", "params_file", "remap", "teleop", "use_sim_time"}
RENAMED = {"record": "directory", "dashboard_port": "port", "dashboard_run": "run"}  # launch option -> parameter
SOURCES = (parameters, launch_config, teleop, output_parameters)


def parameter_of(config: type, option: str) -> dataclasses.Field:
    """The node's parameter behind a launch option."""
    name = RENAMED.get(option, option)
    return next(f for group in NODE_OF[config] for f in dataclasses.fields(group) if f.name == name)


@pytest.mark.parametrize("config", NODE_OF)
def test_a_launch_option_has_the_description_and_the_default_of_the_parameter(config):
    for option in dataclasses.fields(config):
        if option.name in LAUNCH_ONLY:
            continue
        source = parameter_of(config, option.name)
        override = LAUNCH_OVERRIDES.get(option.name)
        assert option.type == source.type, option.name
        for key in ("bounds", "choices", "read_only"):
            assert option.metadata[key] == source.metadata[key], option.name
        expected = source.metadata["description"]
        if override is None:
            assert (option.default, option.metadata["description"]) == (source.default, expected), option.name
        else:
            assert option.default == override.default, option.name
            assert option.metadata["description"] == f"{expected}; {override.reason}", option.name


def test_every_override_belongs_to_an_option_and_gives_a_reason():
    options = {option.name for option in dataclasses.fields(SystemLaunchConfig)}
    assert LAUNCH_OVERRIDES.keys() <= options
    assert all(len(override.reason.split()) > 3 for override in LAUNCH_OVERRIDES.values())


def test_a_launch_only_option_is_no_parameter_of_a_node():
    groups = (ArmParameters, *POLICY_GROUPS, RecorderParameters, SimParameters, TeleopParameters)
    names = {field.name for group in groups for field in dataclasses.fields(group)}
    options = (*dataclasses.fields(ViewLaunchConfig), *dataclasses.fields(EndLaunchConfig))
    launch_only = LAUNCH_ONLY | {option.name for option in options}
    assert launch_only & names == set()


def texts(path: Path) -> list[str]:
    """Every string of a module that has more than three words, without docstrings."""
    tree = ast.parse(path.read_text())
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node not in docstrings
        and len(node.value.split()) > 3
    ]


def test_no_description_is_written_twice():
    written = Counter(text for module in SOURCES for text in texts(Path(module.__file__)))
    assert [text for text, count in written.items() if count > 1] == []


def test_no_other_module_repeats_a_description():
    descriptions = {
        field.metadata["description"]
        for group in (ArmParameters, *POLICY_GROUPS, RecorderParameters, SimParameters, TeleopParameters)
        for field in dataclasses.fields(group)
    }
    descriptions |= {option.metadata["description"] for option in dataclasses.fields(ViewLaunchConfig)}
    sources = {Path(module.__file__) for module in (*SOURCES, limits)}
    folders = [ROOT / "ros2_ws/src", ROOT / "training", ROOT / "launch", ROOT / "scripts"]
    others = [path for folder in folders for path in folder.rglob("*.py") if path not in sources]
    assert [(path.name, text) for path in others for text in texts(path) if text in descriptions] == []
