"""Every command on every page parses, names existing things, and has a row in docs/dev/commands.md."""

import ast
import importlib.util
import re
from dataclasses import fields

import pytest
from pages import ROOT, Command, commands, commands_in

from m2distill_policy.bringup import client_cli, system
from m2distill_policy.errors import UserError
from m2distill_training.cli import main

NODES_PAGE = (ROOT / "docs/reference/nodes.md").read_text()
COMMANDS_PAGE = (ROOT / "docs/reference/commands.md").read_text()
TABLE = re.findall(r"^\| `([^`]+)` \| (.+) \|$", (ROOT / "docs/dev/commands.md").read_text(), re.M)
LAUNCH = {"run": system.SystemLaunchConfig, "policy": system.PolicyLaunchConfig, "sim": system.SimLaunchConfig}
ALL = commands()


def of(*begin: str, whole: bool | None = None) -> list[Command]:
    """Return the commands with these first words, including those inside `docker run`."""
    inside = {"m2distill:train": ("m2distill",), "m2distill:robot": ()}
    found = list(ALL)
    for command in ALL:
        for i, word in enumerate(command.words):
            if word in inside and command.words[:2] == ("docker", "run"):
                found.append(Command(command.place, (*inside[word], *command.words[i + 1 :]), command.whole))
    return [c for c in found if c.words[: len(begin)] == begin and whole in (None, c.whole)]


def test_commands_are_found_in_blocks_and_sentences_and_not_in_fences():
    page = (
        "Run `make demo`, not `demo`.\n\n    A=1 m2distill tasks --suite x > out  # why\n    ros2 topic \\\n"
        "      list && pip check\n    files/here  what\n```\nmake tea\n```\n"
    )
    assert [(c.place, c.words, c.whole) for c in commands_in(page, "p")] == [
        ("p:1", ("make", "demo"), False),
        ("p:3", ("m2distill", "tasks", "--suite", "x"), True),
        ("p:5", ("ros2", "topic", "list"), True),
        ("p:5", ("pip", "check"), True),
    ]


# --- m2distill


def parse(words: list[str]) -> None:
    """Parse a command line with the real parser, without running the command. Raises UserError."""
    name, entry, rest = main.find(words)
    assert entry and not entry.subcommands, f"{name} needs a subcommand"
    options = main.make_parser(name, main.load(entry), rest).parse_args()
    if name == "m2distill service":
        client_cli.service_arguments(options.words)


def has_own_strategy(command: Command) -> bool:
    return any(re.match(r"[\w.]+:\w+$", word) for word in command.words)


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "run", "--episode", "3"],
        ["train", "--preset", "smal"],
        ["rollback"],
        ["bag", "mend"],
        ["run", "--checkpoint", "c", "--arm", "toaster"],
    ],
)
def test_a_wrong_command_line_does_not_parse(words):
    with pytest.raises(UserError):
        parse(words)


def test_every_m2distill_line_parses():
    lines = [*of("m2distill", whole=True), *of(".venv/bin/m2distill", whole=True)]
    torchrun = [Command(c.place, c.words[c.words.index("m2distill_training") :], True) for c in of("torchrun")]
    assert lines and torchrun
    wrong = []
    for command in [*lines, *torchrun]:
        if command.words[1] in ("--help", "--version") or has_own_strategy(command):
            continue  # test_tutorials.py runs the line with a strategy of a page
        try:
            parse(list(command.words[1:]))
        except UserError as error:
            wrong.append(f"{command}: {error}")
    assert wrong == []


def test_commands_and_options_in_sentences_exist():
    sections = dict(re.findall(r"^## (m2distill [\w -]+?)\n(.*?)(?=^## |\Z)", COMMANDS_PAGE, re.M | re.S))
    for command in of("m2distill", whole=False):
        names = [" ".join(command.words[:n]) for n in (3, 2)]
        text = "".join(
            section for title, section in sections.items() if title in names or title.startswith(f"{names[-1]} ")
        )
        assert text, command
        own = has_own_strategy(command)  # with options of its own
        for option in command.words:
            if own and "." in option:
                continue
            assert not option.startswith("--") or f"{option} " in text or f"{option}`" in text, command


# --- ROS 2


def test_every_launch_argument_is_declared():
    for command in of("ros2", "launch", "m2distill_policy"):
        file, *arguments = command.words[3:]
        assert (ROOT / "launch" / file).is_file(), command
        options = {option.name: option for option in fields(LAUNCH[file.removesuffix(".launch.py")])}
        for argument in arguments:
            name, _, value = argument.partition(":=")
            if argument != "--show-args" and name not in ("rviz", "required"):
                assert name in options, command
                system.read_option(options[name], value)  # raises for a value that is not allowed


def node_rows() -> dict[str, str]:
    """Return {absolute name: type} of endpoints and {name: ""} of parameters, as `/policy/status`."""
    rows = {}
    nodes = "policy|recorder|teleop|dashboard|sim"
    for node, section in re.findall(rf"^## ({nodes})\n(.*?)(?=^## )", NODES_PAGE, re.M | re.S):
        for name, cells in re.findall(r"^\| `([\w/~]+)` \| (.*) \|$", section, re.M):
            kind, type_ = cells.split(" | ")[:2]
            if re.match(r"(in|out|service|action)\b", kind):
                rows["/" + name.replace("~", node).removeprefix("/")] = type_
            else:
                rows[f"/{node}.{name}"] = ""
    return rows


ROWS = node_rows()


def test_the_nodes_page_is_parsed():
    assert ROWS["/policy/status"] == "m2distill_interfaces/msg/PolicyStatus"
    assert "/policy.max_linear_m_s" in ROWS and "/diagnostics" in ROWS and "/sim/reset" in ROWS


def test_topics_services_and_types_match_the_nodes():
    named = [*of("ros2", "service", "call"), *of("ros2", "topic", "pub"), *of("ros2", "topic", "echo")]
    assert named
    for command in named:
        name, *rest = [word for word in command.words[3:] if not word.startswith("--")]
        assert name in ROWS, command
        assert not rest or rest[0] == ROWS[name], command
        if len(rest) > 1:  # the message
            assert rest[0] == "std_msgs/msg/String" and re.fullmatch(r"\{data: [^{}]+\}", rest[1]), command


def test_parameters_and_nodes_exist():
    for command in of("ros2", "param", "set"):
        assert f"{command.words[3]}.{command.words[4]}" in ROWS, command
    for command in of("ros2", "lifecycle"):
        assert command.words[3] in ("/policy", "/recorder"), command
    for command in of("ros2", "run"):
        package, executable = command.words[2:4]
        assert (ROOT / "ros2_ws/src" / package / "scripts" / executable).is_file(), command
        _parameters_exist(command, executable)
    for command in of("python", "-m"):
        assert importlib.util.find_spec(command.words[2]), command
        _parameters_exist(command, command.words[2].split(".")[-1])


def test_m2distill_service_names_existing_services_and_parameters():
    for command in of("m2distill", "service", whole=True):
        at = command.words.index("--set") if "--set" in command.words else len(command.words)
        for service in command.words[2:at]:
            assert ROWS[f"/{service}"] == "std_srvs/srv/Trigger", command
        node, _, _ = command.words[2].partition("/")
        for setting in command.words[at + 1 :]:
            assert f"/{node}.{setting.split('=')[0]}" in ROWS, command


def _parameters_exist(command: Command, executable: str) -> None:
    for flag, word in zip(command.words, command.words[1:], strict=False):
        if flag == "-p" and word != "use_sim_time:=true":  # every node has it
            assert f"/{executable.removesuffix('_node')}.{word.split(':=')[0]}" in ROWS, command


# --- the others


def test_make_targets_files_and_image_stages_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    stages = re.findall(r" AS ([a-z-]+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert len(of("make")) > 3
    for command in of("make"):
        assert set(command.words[1:]) <= set(targets), command
    for command in of("docker", "build", whole=True):
        assert command.words[command.words.index("--target") + 1] in stages, command
    for command in ALL:
        scripts = [word for word in command.words if word.startswith("scripts/")]
        assert all((ROOT / script).is_file() for script in scripts), command


def test_the_pip_lines_match_the_setup_script():
    said = (ROOT / "scripts/setup.sh").read_text()
    lines = of(".venv/bin/python", "-m", "pip")
    assert len(lines) == 3
    for command in lines:
        for word in command.words[4:]:
            assert word in said or word == "-r", command


# --- what runs it


def rows_for(command: Command) -> list[str]:
    """Return the rows of docs/dev/commands.md whose words are the first ones of the command, options left out."""
    words = [word.removeprefix(".venv/bin/") for word in command.words if not word.startswith("--")]
    return [form for form, _ in TABLE if words[: len(form.split())] == form.split()]


def test_every_command_has_a_row_in_the_table():
    assert [str(command) for command in ALL if not rows_for(command)] == []


def test_every_row_of_the_table_has_a_command():
    used = {form for command in ALL for form in rows_for(command)}
    assert [form for form, _ in TABLE if form not in used] == []
    assert len({form for form, _ in TABLE}) == len(TABLE)


@pytest.mark.parametrize(("form", "by"), TABLE)
def test_a_row_names_existing_tests_or_is_marked_untested(form, by):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", by)
    assert named or re.match(r"(untried|by hand): \w+", by)
    for file, name in named:
        source = (ROOT / file).read_text()
        assert name in {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}, name
        if form.startswith("m2distill "):
            assert all(word in source.replace("_", "-") for word in form.split()[1:]), f"{file} runs others"
