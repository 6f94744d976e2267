"""Writes docs/reference/ from the code: the options of every command, and what the running nodes declare.

    make reference

Tests compare the committed pages with what this writes now, so that a page cannot grow stale.
"""

import argparse
import dataclasses
import gc
import os
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import Field, fields
from pathlib import Path
from types import ModuleType

from m2distill_policy.utils.argument_parser import HelpFormatter, default_text

ROOT = Path(__file__).resolve().parents[1]
NOTE = "Written by `make reference`; do not edit.\n"
VARIANTS = {"train": ("small", "libero", "debug")}  # a preset gives other defaults
OTHER_STRATEGIES = ("ewc", "packnet")  # with hyper-parameters of their own; the presets have m2distill's
EXIT_STATUS = {
    0: "done",
    1: "the command ran, and its result does not meet its criterion (`demo`, `promote`, `compare`)",
    2: "an error that the user can correct: one line on stderr",
    130: "interrupted by Ctrl-C, also `m2distill run`",
}


# --- the command line


def cli_page() -> str:
    """The page of all commands, from their parsers."""
    from m2distill_training.cli import main

    lines = [
        "# Commands",
        "",
        NOTE,
        "Each command's `--help` prints the same. `--version` in place of a command prints the version. If the package "
        "argcomplete is installed, bash and zsh complete commands, options and values after this line:",
        "",
        '    eval "$(register-python-argcomplete m2distill)"',
        "",
        *_table(["exit status", ""]),
        *(f"| {status} | {meaning} |" for status, meaning in EXIT_STATUS.items()),
        "",
    ]
    for name, entry in main.leaves():
        lines += _command(name, main.load(entry))
    return "\n".join(lines)


def _command(name: str, module: ModuleType) -> list[str]:
    from m2distill_training.cli import main

    presets = VARIANTS.get(name, ())
    parsers = [
        main.make_parser(f"m2distill {name}", module, ["--preset", preset] if preset else [])
        for preset in presets or ("",)
    ]
    lines = [f"## m2distill {name}", ""]
    for paragraph in module.DESCRIPTION.split("\n\n"):
        lines += [" ".join(paragraph.split()), ""]
    for example in module.EXAMPLES:
        lines += [example.lstrip("# ").capitalize() if example.startswith("#") else f"    {example}", ""]
    titles = dict.fromkeys(group.title for parser in parsers for group in parser._action_groups)
    for title in titles:
        groups = [next((g for g in p._action_groups if g.title == title), None) for p in parsers]
        lines += _group(title, groups, presets)
    if name == "train":
        for strategy in OTHER_STRATEGIES:
            parser = main.make_parser("", module, ["--strategy", strategy])
            lines += _group(strategy, [g for g in parser._action_groups if g.title == strategy], ())
    return lines


def _group(title: str | None, groups: list, presets: Sequence[str]) -> list[str]:
    """A table of the options of one group: a column for the default in each of `presets`."""
    tables = [{_option(a): a for a in g._group_actions if a.dest != "help"} if g else {} for g in groups]
    names = list(dict.fromkeys(name for table in tables for name in table))
    if not names:
        return []
    lines = []
    if title not in ("options", "positional arguments"):
        about = " ".join((next(g for g in groups if g).description or "").split())
        lines = [f"**{title}**" + (f": {about}" if about else ""), ""]
    lines += _table(["", *(f"default: {p}" for p in presets or ("",)), ""] if presets else ["", "default", ""])
    for name in names:
        actions = [table.get(name) for table in tables]
        meaning = next(a for a in actions if a).help.replace("%%", "%").replace("<", "\\<")
        cells = [*(_default(a) for a in actions), meaning]
        lines.append(" | ".join([f"| {name}", *(cell.replace("|", "\\|") for cell in cells)]) + " |")
    return [*lines, ""]


def _option(action: argparse.Action) -> str:
    """The names of an option with its value, as code."""
    value = HelpFormatter("")._format_args(action, action.dest.upper()) if action.nargs != 0 else ""
    names = action.option_strings or [""]
    return ", ".join(f"`{f'{name} {value}'.strip()}`" for name in names).replace("|", "\\|")


def _default(action: argparse.Action | None) -> str:
    if action is None:
        return "-"
    return "required" if action.required and action.option_strings else default_text(action)


def _table(titles: list[str]) -> list[str]:
    return ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]


def _row(name: str, *cells: str) -> str:
    """`name` as code, and cells without a bar, which would end them."""
    return " | ".join([f"| `{name}`", *(cell.replace("|", "\\|") for cell in cells)]) + " |"


# --- the nodes


def ros_page() -> str:
    """Return the page of the nodes. It creates them, so it requires ROS 2, the built messages and the simulator."""
    import rclpy

    from m2distill_policy.ros.nodes.policy_node import PolicyNode
    from m2distill_policy.ros.nodes.recorder_node import RecorderNode
    from m2distill_policy.ros.nodes.teleop_node import TeleopNode
    from m2distill_sim.ros.nodes.sim_node import SimNode

    lines = [
        "# Nodes",
        "",
        NOTE,
        "Topics, services and parameters of the nodes with their defaults, and with a checkpoint whose cameras are "
        "`agentview` and `wrist`. Each node also has what every ROS 2 node has, such as parameter services and "
        "`/rosout`; `policy` and `recorder` have a lifecycle. [ROS interface](../ros.md) explains them. A parameter "
        "marked *start* is read when the node starts and cannot be set later.",
        "",
    ]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = _checkpoint(Path(folder) / "checkpoint")
        rclpy.init(
            args=["--ros-args", "-p", f"policy:checkpoint:={checkpoint}", "-p", f"recorder:checkpoint:={checkpoint}"]
        )
        os.chdir(folder)  # the recorder's default directory is relative
        try:
            lines += _node(
                "policy",
                "m2distill_policy policy_node",
                PolicyNode,
                [{"output": output} for output in ("twist", "pose", "array")],
            )
            lines += _arms()
            lines += _robot_keys()
            lines += _node("recorder", "m2distill_policy recorder_node", RecorderNode)
            lines += _node("teleop", "m2distill_policy teleop_node", TeleopNode)
            lines += _node("sim", "m2distill_sim sim_node", SimNode)
        finally:
            os.chdir(ROOT)
            rclpy.try_shutdown()
    return "\n".join([*lines, *_launch_files(), *_interfaces()])


def _launch_files() -> list[str]:
    """Return the section of the launch files."""
    from m2distill_policy.bringup.launch_config import (
        EndLaunchConfig,
        PolicyLaunchConfig,
        SimLaunchConfig,
        SystemLaunchConfig,
        ViewLaunchConfig,
    )

    lines = [
        "## Launch files",
        "",
        "`m2distill run` has the same options, written with `--` and `-` instead of `_`, except `required` and `rviz`. "
        "Defaults and descriptions are those of the nodes' parameters; where a launch default differs, the "
        "description gives the reason.",
        "",
    ]
    for name, config in (("run", SystemLaunchConfig), ("policy", PolicyLaunchConfig), ("sim", SimLaunchConfig)):
        lines += [f"**{name}.launch.py**", "", *_table(["", "default", ""])]
        options = [*fields(config), *fields(EndLaunchConfig), *(fields(ViewLaunchConfig) if name != "sim" else ())]
        lines += [_launch_option(o, "true" if (name, o.name) == ("run", "required") else "") for o in options]
        lines += [""]
    return lines


def _interfaces() -> list[str]:
    """Return the section of the messages and the action."""
    lines = ["## Interfaces", ""]
    for path in sorted((ROOT / "ros2_ws/src/m2distill_interfaces").glob("*/*.[am]*")):
        lines += [
            f"**m2distill_interfaces/{path.parent.name}/{path.stem}**",
            "",
            "```",
            path.read_text().rstrip(),
            "```",
            "",
        ]
    return lines


def _launch_option(option: Field, default: str) -> str:
    from m2distill_policy.bringup.launch_config import choices_of, default_text

    choices = choices_of(option)
    texts = [option.metadata["description"], *([f"one of {', '.join(choices)}"] if choices else [])]
    return _row(f"{option.name}:=", default or default_text(option), "; ".join(texts))


def _checkpoint(path: Path) -> str:
    """Save an untrained policy that knows one instruction; return its path."""
    import numpy as np

    from m2distill_policy.checkpoint import Checkpoint, save_checkpoint
    from m2distill_policy.models import Policy, small
    from m2distill_policy.spec import libero_spec

    spec = libero_spec(64, text_encoder="none", text_width=8)
    save_checkpoint(
        path, Checkpoint(spec, small(), Policy(small(), spec).state_dict(), {"wave": np.ones(8, np.float32)})
    )
    return str(path)


def _node(name: str, executable: str, make, settings=({},)) -> list[str]:
    """Return the section of a node with the first of `settings`, and what the others add to it."""
    from rclpy.lifecycle import LifecycleNode
    from rclpy.parameter import Parameter

    endpoints: dict[str, str] = {}
    for setting in settings:
        node = make()
        _await_only_node(node)
        try:
            parameters = _parameters(node)
            node.set_parameters([Parameter(key, value=value) for key, value in setting.items()])
            if isinstance(node, LifecycleNode):
                node.trigger_configure()
            note = "".join(f" with `{key}:={value}`" for key, value in setting.items()) if endpoints else ""
            for endpoint, (kind, type_, qos) in _endpoints(node).items():
                endpoints.setdefault(endpoint, _row(endpoint, kind + note, type_, qos))
        finally:
            node.close()
            node.destroy_node()
            del node
            gc.collect()  # a node leaves the graph when it is deleted
    return [
        f"## {name}",
        "",
        f"    ros2 run {executable}",
        "",
        *_table(["name", "", "type", "QoS"]),
        *endpoints.values(),
        "",
        *parameters,
        "",
    ]


def _await_only_node(node, limit_s: float = 10.0) -> None:
    """Wait until the graph has forgotten an earlier node of this name; it may return the endpoints of either."""
    deadline_s = time.monotonic() + limit_s
    while node.get_node_names().count(node.get_name()) > 1:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the graph has more than one node {node.get_name()} after {limit_s} s")
        time.sleep(0.05)


def _parameters(node) -> list[str]:
    lines = _table(["parameter", "type", "default", "allowed", ""])
    kinds = {1: "bool", 2: "int", 3: "float", 4: "string", 8: "float array", 9: "string array"}
    for d in node.describe_parameters(node.list_parameters([], 0).names):
        if d.name in ("use_sim_time", "start_type_description_service"):  # of every node
            continue
        value = node.get_parameter_or(d.name).value  # None for an empty array
        if d.name == "checkpoint":  # set above; it has no default
            value = ""
        ranges = [*d.floating_point_range, *d.integer_range]
        allowed = (
            f"{_text(ranges[0].from_value)} to {_text(ranges[0].to_value)}"
            if ranges
            else d.additional_constraints.removeprefix("one of ")
        )
        lines.append(
            _row(d.name, kinds[d.type] + (", *start*" if d.read_only else ""), _text(value), allowed, d.description)
        )
    return lines


def _text(value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"`{value}`" if value else ""
    if isinstance(value, int):
        return str(value)
    return ", ".join(map(_text, value)) if hasattr(value, "__len__") else f"{value:g}"


def _endpoints(node) -> dict[str, tuple[str, str, str]]:
    """Return (kind, type, quality of service) of each topic, service and action, by name."""
    from rclpy.action import get_action_server_names_and_types_by_node
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

    name, space = node.get_name(), node.get_namespace()
    common = re.compile(r"/rosout|/parameter_events|.*/_action/.*|.*/transition_event")
    found = {}
    for kind, listed, info in (
        ("in", node.get_subscriber_names_and_types_by_node(name, space), node.get_subscriptions_info_by_topic),
        ("out", node.get_publisher_names_and_types_by_node(name, space), node.get_publishers_info_by_topic),
    ):
        for topic, (type_,) in listed:
            if common.fullmatch(topic) or (topic == "/clock" and kind == "in"):
                continue
            (qos,) = {(i.qos_profile.reliability, i.qos_profile.durability) for i in info(topic) if i.node_name == name}
            words = [
                "best effort" if qos[0] == ReliabilityPolicy.BEST_EFFORT else "reliable",
                *(["latched"] if qos[1] == DurabilityPolicy.TRANSIENT_LOCAL else []),
            ]
            found[_relative(topic, name)] = (kind, type_, ", ".join(words))
    for service, (type_,) in node.get_service_names_and_types_by_node(name, space):
        if not re.match(r"rcl_interfaces|type_description_interfaces|lifecycle_msgs", type_) and not common.fullmatch(
            service
        ):
            found[_relative(service, name)] = ("service", type_, "")
    for action, (type_,) in get_action_server_names_and_types_by_node(node, name, space):
        found[_relative(action, name)] = ("action", type_, "")
    return found


def _relative(name: str, node: str) -> str:
    """Return the name as the node wrote it: /diagnostics and /clock are absolute, the others relative."""
    if name in ("/diagnostics", "/clock"):
        return name
    return name.removeprefix("/").replace(f"{node}/", "~/", 1)


def _arms() -> list[str]:
    from m2distill_policy.safety.arm_presets import arm_names, load_arm

    arms = {name: load_arm(name) for name in arm_names()}
    names = [name for name in arms if arms[name]]
    lines = ["**Defaults by `arm`**, where they differ from those above", "", *_table(["parameter", *names])]
    for parameter in dict.fromkeys(key for name in names for key in arms[name]):
        lines.append(
            _row(parameter, *(_text(arms[name][parameter]) if parameter in arms[name] else "" for name in names))
        )
    return [*lines, ""]


def _robot_keys() -> list[str]:
    """Return the table of an arm file's keys that are no parameters of the node."""
    from m2distill_policy.robot import RobotParameters

    lines = ["**Keys of an [arm file](../ros.md#an-arm-of-your-own) that describe the robot**", ""]
    lines += _table(["key", "default", "allowed", ""])
    for field in dataclasses.fields(RobotParameters):
        low, high = field.metadata["bounds"]
        allowed = ", ".join(field.metadata["choices"]) or ("" if low is None else f"{_text(low)} to {_text(high)}")
        lines.append(_row(field.name, _text(field.default), allowed, field.metadata["description"]))
    return [*lines, ""]


WRITERS = {"commands.md": cli_page, "nodes.md": ros_page}


def main() -> None:
    from m2distill_policy.bringup.processes import environment
    from m2distill_policy.utils.files import write_atomically

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"{' or '.join(WRITERS)}; default: both")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "reference")
    chosen = parser.parse_args()
    os.environ.update(environment())
    out = chosen.out.resolve()
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as logs:
        os.environ["ROS_LOG_DIR"] = logs
        for page in chosen.pages or WRITERS:
            write_atomically(out / page, WRITERS[page]().encode())


if __name__ == "__main__":
    main()
