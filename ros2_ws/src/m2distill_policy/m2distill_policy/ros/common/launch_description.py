"""Launch files from the description in `bringup/system.py`. The only module that requires ROS 2's launch package.

Everything that a file needs belongs to its own nodes, so that another launch file can include it: no environment
variable of the launch is set, and the end of a node ends no process of the including file unless `required` is set.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from typing import Any

from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, OpaqueFunction, Shutdown
from launch.events.process import ProcessExited, ShutdownProcess
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from m2distill_policy.bringup.launch_config import (
    EndLaunchConfig,
    SharedLaunchConfig,
    ViewLaunchConfig,
    choices_of,
    default_text,
    misspelt_option,
    read_option,
)
from m2distill_policy.bringup.processes import STARTER_PID, STOP_SIGNALS, NodeDescription, environment
from m2distill_policy.errors import UserError

RVIZ_CONFIG = ("m2distill_policy", "rviz", "m2distill.rviz")  # package, then the path in its share folder
OnExit = Callable[[ProcessExited, LaunchContext], list[LaunchDescriptionEntity] | None]


def description(
    config_class: type[SharedLaunchConfig],
    nodes: Callable[[SharedLaunchConfig], tuple[NodeDescription, ...]],
    rviz: bool = False,
    required: bool = False,
    note: Callable[[Any], str] = lambda config: "",
) -> LaunchDescription:
    """Return a launch description in which the end of one node ends the others.

    Args:
        config_class: Options; each field becomes a launch argument.
        nodes: Function that returns the nodes for a configuration.
        rviz: Add the argument `rviz`, which opens RViz on the arm, the cameras and the commands.
        required: Default of the argument `required`.
        note: Function that returns a line to log for a configuration; empty: none.
    """
    options = fields(config_class)
    of_the_launch = [*fields(EndLaunchConfig), *(fields(ViewLaunchConfig) if rviz else ())]
    defaults = {option.name: default_text(option) for option in (*options, *of_the_launch)}
    defaults["required"] = str(required).lower()

    def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        given = context.launch_configurations
        _reject_misspelt(context, defaults)
        config = config_class(**{option.name: read_option(option, given[option.name]) for option in options})
        chosen = {option.name: read_option(option, given[option.name]) for option in of_the_launch}
        variables = environment(context.environment)
        started: list[Node] = []
        end = _end(started, chosen["required"])
        described = nodes(config)
        started += [_node(node, variables, None if node.optional else end) for node in described]
        if chosen.get("rviz"):
            started.append(_rviz(config.namespace, variables))
        line = note(config)
        return [*started, *([LogInfo(msg=line)] if line else [])]

    arguments = [_argument(option, defaults[option.name]) for option in (*options, *of_the_launch)]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])


def _reject_misspelt(context: LaunchContext, declared: dict[str, str]) -> None:
    """Raise UserError for an undeclared argument that is spelt nearly like a declared one, which launch ignores."""
    typed = {argument.partition(":=")[0] for argument in context.argv}
    for name in context.launch_configurations:
        near = "" if name in declared else misspelt_option(name, declared, name in typed)
        if near:
            raise UserError(
                f"unknown launch argument {name!r}; did you mean {near!r}? Nothing was started. An including launch "
                "file that has an argument of that name can hide it by a GroupAction with forwarding=False"
            )


def _end(started: Sequence[Node], required: bool) -> OnExit:
    """Return what happens when one of the nodes has ended."""

    def on_exit(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity] | None:
        if context.is_shutdown:
            return None
        name = event.action.node_name if isinstance(event.action, Node) else event.process_name
        if not required:
            return [EmitEvent(event=ShutdownProcess(process_matcher=lambda action: action in started))]
        if event.returncode:  # launch then ends the other nodes and has the exit status 1
            raise UserError(f"{name} ended with status {event.returncode}; its last line states the reason")
        return [Shutdown(reason=f"{name} has ended")]

    return on_exit


def _node(node: NodeDescription, variables: dict[str, str], on_exit: OnExit | None) -> Node:
    (_, until_sigterm_s), (_, until_sigkill_s), _ = STOP_SIGNALS
    return Node(
        package=node.package,
        executable=node.executable,
        name=node.name,
        namespace=node.namespace,
        parameters=[node.parameters, *filter(None, [node.params_file])],
        remappings=list(node.remappings),
        output="screen",
        additional_env={**variables, STARTER_PID: str(os.getpid())},
        on_exit=on_exit,
        sigterm_timeout=str(until_sigterm_s),
        sigkill_timeout=str(until_sigkill_s),
    )


def _argument(option: Field, default: str) -> DeclareLaunchArgument:
    choices = list(choices_of(option))
    if set(choices) >= {"true", "false"}:  # as nav2's launch files write them
        choices += ["True", "False"]
    return DeclareLaunchArgument(
        option.name,
        default_value=default,
        description=option.metadata["description"],
        choices=choices or None,
    )


def _rviz(namespace: str, variables: dict[str, str]) -> Node:
    package, *path = RVIZ_CONFIG
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=namespace,
        arguments=["-d", PathJoinSubstitution([FindPackageShare(package), *path])],
        remappings=[("/tf", "tf"), ("/tf_static", "tf_static")],  # those of the namespace
        additional_env=variables,
    )
