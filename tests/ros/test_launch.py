"""The launch files, read by ROS 2's launch package, and the views they open."""

import importlib.util
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from m2distill_policy.bringup import system
from m2distill_policy.bringup.launch_config import (
    PolicyLaunchConfig,
    SimLaunchConfig,
    SystemLaunchConfig,
    choices_of,
    misspelt_option,
    read_option,
)
from m2distill_policy.errors import UserError

ROOT = Path(__file__).parents[2]
needs_launch = pytest.mark.skipif(not importlib.util.find_spec("launch_ros"), reason="no launch package here")
LAUNCH_FILES = [
    ("run", SystemLaunchConfig, system.system_nodes),
    ("policy", PolicyLaunchConfig, system.policy_nodes),
    ("sim", SimLaunchConfig, system.sim_nodes),
]
CHOSEN = {
    "checkpoint": "c",
    "namespace": "robot1",
    "task": "3",
    "arm": "ur_servo",
    "autostart": "false",
    "pacing": "lockstep",
    "remap": "twist_cmd:=/servo/twist ee_pose:=/pose",
}


def entities(name: str):
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    return get_launch_description_from_python_launch_file(str(ROOT / "launch" / f"{name}.launch.py")).entities


def started(name: str, chosen: dict[str, str]) -> list:
    """Return the nodes that the file starts with the arguments `chosen`, then a line that it logs."""
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch_ros.actions import Node

    from launch import LaunchContext

    context = LaunchContext()
    context.launch_configurations.update(chosen)
    nodes = []
    for entity in entities(name):
        assert isinstance(entity, DeclareLaunchArgument | OpaqueFunction)  # nothing that an including file would notice
        nodes += entity.execute(context) or []
    for node in nodes:
        if isinstance(node, Node):
            node._perform_substitutions(context)
    return nodes


@needs_launch
@pytest.mark.parametrize(("name", "config_class", "nodes"), LAUNCH_FILES)
def test_a_launch_file_starts_the_nodes_of_the_description(name, config_class, nodes, tmp_path):
    file = tmp_path / "arm.yaml"
    file.write_text("/**/policy:\n  ros__parameters:\n    seed: 7\n")
    chosen = {key: value for key, value in CHOSEN.items() if key in config_class.__dataclass_fields__}
    chosen["params_file"] = str(file)
    config = config_class(
        **{
            option.name: read_option(option, chosen[option.name])
            for option in fields(config_class)
            if option.name in chosen
        }
    )
    expected = nodes(config)
    actual = started(name, chosen)
    assert [(n.node_package, n.node_executable, n.node_name) for n in actual] == [
        (n.package, n.executable, f"/robot1/{n.name}") for n in expected
    ]
    for node, description in zip(actual, expected, strict=True):
        options, last = (Path(path) for path, is_file in node._Node__expanded_parameter_arguments if is_file)
        assert last == file and node.expanded_remapping_rules == list(description.remappings)
        (parameters,) = yaml.safe_load(options.read_text()).values()
        assert parameters == {"ros__parameters": description.parameters}


@needs_launch
@pytest.mark.parametrize(("name", "config_class", "nodes"), LAUNCH_FILES)
def test_show_args_explains_every_argument(name, config_class, nodes):
    from launch.actions import DeclareLaunchArgument

    arguments = {e.name: e for e in entities(name) if isinstance(e, DeclareLaunchArgument)}
    assert arguments.keys() - {"rviz", "required"} == config_class.__dataclass_fields__.keys()
    assert arguments["required"].default_value[0].text == ("true" if name == "run" else "false")
    for option in fields(config_class):
        assert option.metadata["description"] in arguments[option.name].description  # launch appends the choices
        choices = list(choices_of(option))
        assert (arguments[option.name].choices or []) == choices + ["True", "False"] * ("true" in choices)


@needs_launch
def test_rviz_opens_only_on_request():
    assert [node.node_executable for node in started("policy", {"checkpoint": "c"})] == ["policy_node"]
    rviz = started("policy", {"checkpoint": "c", "rviz": "True", "namespace": "robot1"})[-1]
    assert (rviz.node_executable, rviz.node_name) == ("rviz2", "/robot1/rviz")


@needs_launch
@pytest.mark.parametrize("name", ["policy", "run"])
def test_a_real_arm_without_a_checkpoint_starts_the_others_and_one_line_states_it(name, tmp_path):
    *nodes, line = started(name, {"arm": "fr3_servo", "record": str(tmp_path), "teleop": "True"})
    assert [node.node_executable for node in nodes] == ["recorder_node", "teleop_node"]
    assert [text.text for text in line.msg] == [
        system.missing_policy(PolicyLaunchConfig(arm="fr3_servo", record=str(tmp_path), teleop=True))
    ]


@needs_launch
def test_an_invalid_choice_is_rejected():
    with pytest.raises(UserError, match="unknown arm 'toaster'"):
        started("run", {"arm": "toaster"})
    with pytest.raises(RuntimeError, match='"pacing" provided value "hurry" is not valid'):
        started("run", {"pacing": "hurry"})
    with pytest.raises(UserError, match="task is 'first', expected a whole number"):
        started("run", {"task": "first"})


def test_a_name_that_another_option_of_an_including_file_may_have_is_not_taken_for_a_misspelt_one():
    declared = tuple(SystemLaunchConfig.__dataclass_fields__)
    assert misspelt_option("speed", declared, typed=True) == "seed"
    for name in ("speed", "site", "arms", "use_namespace", "use_respawn", "slam", "map", "log_level", "robot_name"):
        assert misspelt_option(name, declared, typed=False) == "", name
    for name, option in (("dry_rn", "dry_run"), ("dryrun", "dry_run"), ("recrod", "record"), ("Arm", "arm")):
        assert misspelt_option(name, declared, typed=False) == option
