"""Launch files from the description in bringup.py. The only module that needs ROS 2's launch package."""

from collections.abc import Callable
from dataclasses import fields

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription
from m2distill_policy.bringup.system import STOP_SIGNALS, NodeDescription, SharedLaunchConfig, environment, read_option

RVIZ_CONFIG = ("m2distill_policy", "rviz", "m2distill.rviz")  # package, then the path in its share folder


def description(
    config_class: type[SharedLaunchConfig],
    nodes: Callable[[SharedLaunchConfig], tuple[NodeDescription, ...]],
    rviz: bool = False,
) -> LaunchDescription:
    """Every field of `config_class` as an argument, and the nodes that `nodes` makes of them. When one of these ends,
    the others end too. With `rviz`, an argument of that name opens RViz on what the policy sees and does."""
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

    arguments = [
        DeclareLaunchArgument(
            option.name,
            default_value=_text(option.default),
            description=option.metadata["help"],
            choices=list(option.metadata["choices"]) or None,
        )
        for option in options
    ]
    variables = [SetEnvironmentVariable(name, value) for name, value in environment().items()]
    return LaunchDescription([*arguments, *variables, OpaqueFunction(function=start), *(_rviz() if rviz else ())])


def _rviz() -> tuple[DeclareLaunchArgument, Node]:
    package, *path = RVIZ_CONFIG
    argument = DeclareLaunchArgument(
        "rviz",
        default_value="false",
        choices=["true", "false"],
        description="open RViz on the cameras and the commands; needs the package rviz2",
    )
    node = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", PathJoinSubstitution([FindPackageShare(package), *path])],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return argument, node


def _text(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)
