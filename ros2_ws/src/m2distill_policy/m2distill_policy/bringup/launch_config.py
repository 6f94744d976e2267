"""Options of the launch files and of `m2distill run`.

Each field is a launch argument `name:=` and a command option `--name`, except those of EndLaunchConfig and
ViewLaunchConfig, which only launch files have. Most are a node's parameter, with its default
and description. `LAUNCH_OVERRIDES` lists every option whose default or meaning differs. No ROS import here.
"""

import dataclasses
from collections.abc import Collection
from dataclasses import Field, dataclass
from typing import Any

from m2distill_policy.bringup.parameters import (
    SIMULATED_ARM,
    ArmParameters,
    DashboardParameters,
    PolicyParameters,
    RecorderParameters,
    SimParameters,
)
from m2distill_policy.errors import UserError, unknown_name
from m2distill_policy.safety.arm_presets import resolve_arm
from m2distill_policy.safety.output_parameters import OutputParameters
from m2distill_policy.utils.parameters import expanded, parameter


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
        "",
        "empty: in simulation the shipped starter, for the ten tasks of LIBERO-OBJECT; with a real arm no "
        "policy, so that record and teleop take its first demonstrations",
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
        path=True,
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
    use_sim_time: str = parameter(
        "auto",
        "clock of the nodes: true, the topic /clock; false, the wall clock; auto: true for the simulated arm, "
        "otherwise what the nodes are given elsewhere, by default the wall clock",
        choices=("auto", "true", "false"),
    )
    sampling: str = _launch_option(PolicyParameters, "sampling")
    seed: int = _launch_option(PolicyParameters, "seed")
    image_transport: str = _launch_option(PolicyParameters, "image_transport")
    record: str = _launch_option(RecorderParameters, "directory", "record")
    operator: str = _launch_option(RecorderParameters, "operator")
    teleop: bool = parameter(
        False,
        "start the teleoperation by joystick (docs/ros.md); its joystick driver, joy_node, is not started; for the "
        "keyboard start teleop_node in a terminal",
    )
    follow_checkpoint: bool = _launch_option(PolicyParameters, "follow_checkpoint")
    dashboard: bool = parameter(
        False,
        "start the dashboard, a web page for this computer (docs/dashboard.md); requires the extra dashboard; "
        "params_file can set its other parameters",
    )
    dashboard_port: int = _launch_option(DashboardParameters, "port", "dashboard_port")
    dashboard_run: str = _launch_option(DashboardParameters, "run", "dashboard_run")
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
class EndLaunchConfig:
    """Options of every launch file that `m2distill run` does not have."""

    required: bool = parameter(
        False,
        "end the whole launch, with a status that is not 0 after an error, when one of the nodes ends; false: only the "
        "nodes of this file end together, and those of an including file continue",
    )


@dataclass(frozen=True)
class ViewLaunchConfig:
    """Options of launch files with a policy that `m2distill run` does not have."""

    rviz: bool = parameter(False, "open RViz on the arm, the cameras and the commands; requires the package rviz2")


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
    if choices:
        return text.lower()
    if option.name == "arm":
        return resolve_arm(text)
    if option.type is str:
        return expanded(option, text)
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{option.name} is {text!r}, expected a whole number") from None


def misspelt_option(name: str, declared: Collection[str], typed: bool) -> str:
    """Return the declared option that an undeclared launch argument was probably meant to be; empty if none.

    An including launch file has arguments of its own, which launch shows to the included one. So short names and names
    that differ by more than two letters, such as `use_namespace`, count as another option's.

    Args:
        name: Name of the undeclared argument.
        declared: Names of the options.
        typed: The argument was given on the command line, so that short names are compared too.
    """
    plain = {_plain(option): option for option in declared}
    if _plain(name) in plain:
        return plain[_plain(name)]
    near = {other: _edits(_plain(name), text) for text, other in plain.items()}
    found = min(near, key=near.__getitem__)
    allowed = 2 if len(found) >= 8 else int(typed or len(found) >= 6)
    return found if near[found] <= allowed else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _edits(one: str, other: str) -> int:
    """Return the number of letters to insert, remove, replace or swap with the next between two names."""
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b)))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]
