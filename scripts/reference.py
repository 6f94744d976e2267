"""Writes docs/reference/ from the code: what every command's --help says, and what the running nodes declare.

    make reference

Tests compare the committed pages with what this writes now, so that a page cannot grow stale.
"""

import argparse
import io
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import Field, dataclass, field, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WIDTH = "100"  # of the help pages: wide enough for an option and its text, and one column
NOTE = "Written by `make reference`; do not edit.\n"
VARIANTS = {"train": ("small", "libero", "debug")}  # a preset gives other defaults
CODE_LINE = re.compile(r"(?:Example: )?((?:m2distill|torchrun) .*)")


# --- the command line


@dataclass
class Section:
    """A group of options: its description, and option -> its text, default included."""

    title: str
    text: str = ""
    options: dict[str, str] = field(default_factory=dict)


def help_of(words: list[str]) -> str:
    """What `m2distill WORDS --help` prints."""
    from m2distill_training.cli import main

    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # tyro draws its boxes by the encoding
    with redirect_stdout(out), suppress(SystemExit), _columns():
        main.run([*words, "--help"])
    out.flush()
    return out.buffer.getvalue().decode()


@contextmanager
def _columns() -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def commands() -> dict[str, str]:
    """Command, with its subcommand where it has some -> what the list of commands says of it."""
    found: dict[str, str] = {}
    for name, text in re.findall(r"^  (\S+) +(.*)$", help_of([]), re.M):
        usage = help_of([name]).split("\n\n")[0]
        subcommands = re.search(rf"{name} \[-h\] {{([a-z,-]+)}}$", usage.strip())
        found |= {f"{name} {sub}": text for sub in subcommands[1].split(",")} if subcommands else {name: text}
    return found


def read_help(page: str) -> tuple[str, list[str], list[Section]]:
    """Usage line, paragraphs of the description, groups of options."""
    head, *rest = re.split(r"^(?=╭─ |options:$)", page, flags=re.M)
    usage, *paragraphs = [" ".join(p.split()) for p in head.strip().split("\n\n")]
    sections = []
    for block in rest:
        title, *lines = block.splitlines()
        section = Section(title.strip("╭╮─: "))
        name = ""
        for line in lines:
            if line.startswith("╰"):
                break
            cell = re.sub(r"^(│ |  )|│$", "", line).rstrip()
            if cell.startswith("──"):  # what came before was the description of the group
                section.text, section.options = " ".join(section.options), {}
            elif cell and not cell.startswith(" "):
                name, _, text = cell.partition("  ")
                section.options[name] = text.strip()
            elif cell:
                section.options[name] = f"{section.options[name]} {cell.strip()}".strip()
        section.options = {name: text for name, text in section.options.items() if not name.startswith("-h,")}
        sections.append(section)
    return usage, [p for p in paragraphs if p], [s for s in sections if s.options]


def cli_page() -> str:
    lines = [
        "# Commands",
        "",
        NOTE,
        "Each command's `--help` says the same. Exit codes: 0 done, 2 something that "
        "you can mend (one line on stderr), 130 interrupted.",
        "",
    ]
    for command in commands():
        lines += _command(command)
    return "\n".join(lines)


def _command(command: str) -> list[str]:
    presets = VARIANTS.get(command, ())
    pages = [
        read_help(help_of([*command.split(), *(["--preset", preset] if preset else [])])) for preset in presets or ("",)
    ]
    _, paragraphs, _ = pages[0]
    lines = [f"## m2distill {command}", ""]
    for paragraph in paragraphs:
        for part in re.split(r" (?=torchrun )", paragraph):
            code = CODE_LINE.fullmatch(part)
            lines += [f"    {code[1]}" if code else part, ""]
    for title in dict.fromkeys(section.title for _, _, sections in pages for section in sections):
        groups = [next((s for s in sections if s.title == title), Section(title)) for _, _, sections in pages]
        if title not in ("options", "positional arguments"):
            lines += [f"**{title.removesuffix(' options')}**: {groups[0].text}".rstrip(": ").replace("****", ""), ""]
        lines += [
            *_table(["", *(f"default: {p}" for p in presets or ("",)), ""] if presets else ["", "default", ""]),
            *(_row(name, *_texts(name, groups)) for name in dict.fromkeys(n for g in groups for n in g.options)),
            "",
        ]
    return lines


def _texts(name: str, groups: list[Section]) -> list[str]:
    """The default in every variant, then the meaning."""
    meaning, defaults = "", []
    for group in groups:
        text, _, last = group.options.get(name, "(default: -)").rpartition("(")
        meaning = meaning or text.strip().removesuffix(".")
        defaults.append(last.removesuffix(")").removeprefix("default: ").removeprefix("default:"))
    return [*("" if default == "None" else default for default in defaults), meaning]


def _table(titles: list[str]) -> list[str]:
    return ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]


def _row(name: str, *cells: str) -> str:
    """`name` as code: without the types' brackets, and without a bar, which would end the cell."""
    name = re.sub(r"\[+(\w+) \[\1 \.\.\.\]\]+", r"\1 ...", name.replace("{None}|", ""))
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
        PolicyLaunchConfig,
        SimLaunchConfig,
        SystemLaunchConfig,
        ViewLaunchConfig,
    )

    lines = [
        "## Launch files",
        "",
        "`m2distill run` has the same options, written with `--` and `-` instead of `_`, except `rviz`. Defaults and "
        "descriptions are those of the nodes' parameters; where a launch default differs, the description gives the "
        "reason.",
        "",
    ]
    for name, config in (("run", SystemLaunchConfig), ("policy", PolicyLaunchConfig), ("sim", SimLaunchConfig)):
        lines += [f"**{name}.launch.py**", "", *_table(["", "default", ""])]
        options = [*fields(config), *(fields(ViewLaunchConfig) if name != "sim" else ())]
        lines += [*map(_launch_option, options), ""]
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


def _launch_option(option: Field) -> str:
    from m2distill_policy.bringup.launch_config import choices_of, default_text

    choices = choices_of(option)
    texts = [option.metadata["description"], *([f"one of {', '.join(choices)}"] if choices else [])]
    return _row(f"{option.name}:=", default_text(option), "; ".join(texts))


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
