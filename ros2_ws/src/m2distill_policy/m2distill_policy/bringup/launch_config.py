"""Options of the launch files and of `m2distill run`.

Each field is a launch argument `name:=` and a command option `--name`. Most are a node's parameter, with its default
and description. `LAUNCH_OVERRIDES` lists every option whose default or meaning differs. No ROS import here.
"""

import dataclasses
from dataclasses import Field, dataclass
from typing import Any

from m2distill_policy.bringup.parameters import (
    SIMULATED_ARM,
    ArmParameters,
    PolicyParameters,
    RecorderParameters,
    SimParameters,
)
from m2distill_policy.errors import UserError, unknown_name
from m2distill_policy.safety.arm_presets import resolve_arm
from m2distill_policy.safety.output_parameters import OutputParameters
from m2distill_policy.utils.parameters import parameter


@dataclass(frozen=True)
class LaunchOverride:
    """A launch option that differs from the node's parameter: its default, and the reason, which its help adds."""

    default: str | bool
    reason: str


LAUNCH_OVERRIDES = {
    "arm": LaunchOverride(
        SIMULATED_ARM,
        "the default starts the simulator; all others use the wall clock, so try a real arm with dry_run first",
    ),
    "autostart": LaunchOverride(True, "on by default, so that one command starts a running system"),
    "checkpoint": LaunchOverride(
        "", "empty: the shipped starter, for the first three tasks of LIBERO-OBJECT in simulation"
    ),
    "record": LaunchOverride("", "a folder starts the recorder (docs/recording.md); empty: no recorder"),
}


def _launch_option(parameters: type, name: str, option: str = "") -> Any:
    """Return a field for the node parameter `name`, under the name `option` if that differs."""
    source = parameters.__dataclass_fields__[name]  # type: ignore[attr-defined]
    override = LAUNCH_OVERRIDES.get(option or name)
    if override is None:
        return dataclasses.field(default=source.default, metadata=source.metadata)
    description = f"{source.metadata['description']}; {override.reason}"
    return dataclasses.field(default=override.default, metadata={**source.metadata, "description": description})


@dataclass(frozen=True)
class SharedLaunchConfig:
    """Options of every launch file."""

    namespace: str = parameter("", "namespace of all nodes, one per robot, as in robot1; empty: none")
    pacing: str = _launch_option(PolicyParameters, "pacing")
    params_file: str = parameter(
        "",
        "ROS 2 parameter file (YAML) for parameters without an option, such as a real arm's limits; its values take "
        "precedence over options; empty: none",
    )
    remap: str = parameter(
        "",
        "topic remappings FROM:=TO, separated by spaces, as in 'twist_cmd:=/servo_node/delta_twist_cmds'; empty: none",
    )


@dataclass(frozen=True)
class PolicyLaunchConfig(SharedLaunchConfig):
    """Options of the policy and of the recorder."""

    checkpoint: str = _launch_option(PolicyParameters, "checkpoint")
    arm: str = _launch_option(ArmParameters, "arm")
    dry_run: bool = _launch_option(OutputParameters, "dry_run")
    sampling: str = _launch_option(PolicyParameters, "sampling")
    seed: int = _launch_option(PolicyParameters, "seed")
    image_transport: str = _launch_option(PolicyParameters, "image_transport")
    record: str = _launch_option(RecorderParameters, "directory", "record")
    operator: str = _launch_option(RecorderParameters, "operator")
    follow_checkpoint: bool = _launch_option(PolicyParameters, "follow_checkpoint")
    autostart: bool = _launch_option(PolicyParameters, "autostart")


@dataclass(frozen=True)
class SimLaunchConfig(SharedLaunchConfig):
    """Options of the simulator."""

    suite: str = _launch_option(SimParameters, "suite")
    task: int = _launch_option(SimParameters, "task")
    initial_state: int = _launch_option(SimParameters, "initial_state")
    assets: str = _launch_option(SimParameters, "assets")
    image_size_px: int = _launch_option(SimParameters, "image_size_px")
    cameras: str = _launch_option(SimParameters, "cameras")
    step_limit: int = _launch_option(SimParameters, "step_limit")
    video: str = _launch_option(SimParameters, "video")


@dataclass(frozen=True)
class SystemLaunchConfig(SimLaunchConfig, PolicyLaunchConfig):
    """Options of the policy, and of the simulator if `arm` is the simulated one."""


@dataclass(frozen=True)
class ViewLaunchConfig:
    """Options that only launch files have."""

    rviz: bool = parameter(False, "open RViz on the cameras and the commands; requires the package rviz2")


def choices_of(option: Field) -> tuple[str, ...]:
    """Return the allowed texts of an option; empty if any text is allowed."""
    return ("true", "false") if option.type is bool else option.metadata["choices"]


def default_text(option: Field) -> str:
    """Return an option's default as a user writes it."""
    return str(option.default).lower() if option.type is bool else str(option.default)


def read_option(option: Field, text: str) -> Any:
    """Convert the text that a user wrote to the option's type.

    Raises:
        UserError: The text is not one of the option's choices, not an arm, or not a whole number where one is
            expected.
    """
    choices = choices_of(option)
    if choices and text.lower() not in choices:
        raise UserError(unknown_name(option.name, text, choices))
    if option.type is bool:
        return text.lower() == "true"
    if option.name == "arm":
        return resolve_arm(text)
    if option.type is str:
        return text
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{option.name} is {text!r}, expected a whole number") from None
