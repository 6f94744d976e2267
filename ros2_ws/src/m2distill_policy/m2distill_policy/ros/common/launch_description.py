"""Launch files from the description in `bringup/system.py`. The only module that requires ROS 2's launch package."""

from collections.abc import Callable
from dataclasses import Field, fields

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription
from m2distill_policy.bringup.launch_config import (
    SharedLaunchConfig,
    ViewLaunchConfig,
    choices_of,
    default_text,
    read_option,
)
from m2distill_policy.bringup.processes import STOP_SIGNALS, NodeDescription, environment

RVIZ_CONFIG = ("m2distill_policy", "rviz", "m2distill.rviz")  # package, then the path in its share folder


def description(
    config_class: type[SharedLaunchConfig],
    nodes: Callable[[SharedLaunchConfig], tuple[NodeDescription, ...]],
    rviz: bool = False,
) -> LaunchDescription:
    """Return a launch description in which the end of one node ends the others.

    Args:
        config_class: Options; each field becomes a launch argument.
        nodes: Function that returns the nodes for a configuration.
        rviz: Add the argument `rviz`, which opens RViz on the cameras and the commands.
    """
    options = fields(config_class)
    (_, until_sigterm_s), (_, until_sigkill_s), _ = STOP_SIGNALS

    def start(context: LaunchContext) -> list[Node]:
        chosen = context.launch_configurations
        config = config_class(**{option.name: read_option(option, chosen[option.name]) for option in options})
        return [
            Node(
                package=node.package,
                executable=node.executable,
                name=node.name,
                namespace=node.namespace,
                parameters=[node.parameters, *filter(None, [node.params_file])],
                remappings=list(node.remappings),
                output="screen",
                on_exit=Shutdown(reason=f"{node.name} has ended"),
                sigterm_timeout=str(until_sigterm_s),
                sigkill_timeout=str(until_sigkill_s),
            )
            for node in nodes(config)
        ]

    arguments = [_argument(option) for option in options]
    variables = [SetEnvironmentVariable(name, value) for name, value in environment().items()]
    return LaunchDescription([*arguments, *variables, OpaqueFunction(function=start), *(_rviz() if rviz else ())])


def _argument(option: Field) -> DeclareLaunchArgument:
    return DeclareLaunchArgument(
        option.name,
        default_value=default_text(option),
        description=option.metadata["description"],
        choices=list(choices_of(option)) or None,
    )


def _rviz() -> tuple[DeclareLaunchArgument, Node]:
    (option,) = fields(ViewLaunchConfig)
    package, *path = RVIZ_CONFIG
    node = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", PathJoinSubstitution([FindPackageShare(package), *path])],
        condition=IfCondition(LaunchConfiguration(option.name)),
    )
    return _argument(option), node
