"""Simulator and policy:  ros2 launch m2distill_policy run.launch.py checkpoint:=DIRECTORY

The nodes and their parameters come from m2distill_policy.bringup, the same description that the starter without
ros2 launch uses. `ros2 launch m2distill_policy run.launch.py --show-args` lists the arguments.
"""

from dataclasses import fields

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import Node

from launch import LaunchDescription
from m2distill_policy.bringup import SystemConfig, environment, system


def start(context):
    chosen = context.launch_configurations
    config = SystemConfig(**{field.name: field.type(chosen[field.name]) for field in fields(SystemConfig)})
    return [Node(package=node.package, executable=node.executable, name=node.name, namespace=node.namespace,
                 parameters=[node.parameters], output="screen") for node in system(config)]


def generate_launch_description():
    arguments = [DeclareLaunchArgument(field.name, default_value=str(field.default),
                                       description=field.metadata["help"]) for field in fields(SystemConfig)]
    variables = [SetEnvironmentVariable(name, value) for name, value in environment().items()]
    return LaunchDescription([*arguments, *variables, OpaqueFunction(function=start)])
