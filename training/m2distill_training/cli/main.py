"""The console script `m2distill`: its commands, and what happens to their errors.

Exit status: 0 done; 1 the command ran, and its result does not meet its criterion (demo, promote, compare); 2 an error
that the user can correct, one line on stderr; 130 interrupted. Anything else is a defect and keeps its traceback.
"""

import errno
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType

from m2distill_policy.errors import UserError, unknown_name
from m2distill_policy.utils.argument_parser import Parser
from m2distill_policy.utils.openmp import wait_settings

ERROR = "m2distill: error:"
ISSUE_HINT = "m2distill info prints the versions that an issue needs"


@dataclass(frozen=True)
class CommandEntry:
    """One command of the list, or a group of subcommands."""

    summary: str
    module: str = ""  # in this folder
    subcommands: dict[str, "CommandEntry"] = field(default_factory=dict)  # in place of `module`
    resumable: bool = False  # the same command continues after an interruption


COMMANDS = {
    "demo": CommandEntry("learn two tasks in sequence and execute both over ROS 2, in half an hour", "demo", {}, True),
    "info": CommandEntry("versions, renderer, GPU and text encoders of this installation", "info"),
    "tasks": CommandEntry("list the tasks of a suite, or draw them into one image", "tasks"),
    "collect": CommandEntry("record scripted demonstrations in simulation", "collect", {}, True),
    "import": CommandEntry(
        "convert recorded episodes, datasets and checkpoints of others",
        subcommands={
            "bag": CommandEntry("recorded episodes (rosbag2) to demonstrations", "import_bag"),
            "lerobot": CommandEntry("a LeRobot dataset to demonstrations", "import_lerobot"),
            "libero-checkpoint": CommandEntry("a checkpoint of LIBERO to one of m2distill", "import_libero_checkpoint"),
            "robosuite-demos": CommandEntry("robosuite's human demonstrations of Lift", "import_robosuite_demos"),
        },
    ),
    "export": CommandEntry(
        "convert demonstrations and checkpoints for other tools",
        subcommands={
            "lerobot": CommandEntry("demonstrations to a LeRobot dataset", "export_lerobot"),
            "onnx": CommandEntry("a checkpoint to ONNX", "export_onnx"),
            "half": CommandEntry("a checkpoint with its decoders in half precision", "export_half"),
        },
    ),
    "data": CommandEntry(
        "look at demonstrations, and choose among them",
        subcommands={
            "info": CommandEntry("episodes, lengths, instructions and sizes", "data_info"),
            "show": CommandEntry("a page per set: films, plots, outliers and check boxes", "data_show"),
            "drop": CommandEntry("a new set without some episodes", "data_drop"),
            "trim": CommandEntry("a new set with shorter episodes", "data_trim"),
            "merge": CommandEntry("one new set from several", "data_merge"),
        },
    ),
    "bag": CommandEntry(
        "maintain recorded episodes",
        subcommands={"recover": CommandEntry("finish the episodes of a recorder that was killed", "bag_recover")},
    ),
    "train": CommandEntry("learn a sequence of tasks, with a checkpoint after each stage", "train", {}, True),
    "learn": CommandEntry("teach a run one more task from new demonstrations", "learn", {}, True),
    "promote": CommandEntry("check a checkpoint for forgetting, then deploy it to the robot", "promote", {}, True),
    "rollback": CommandEntry("deploy the previously promoted checkpoint again", "rollback"),
    "evaluate": CommandEntry("success rates of a run or a checkpoint in simulation", "evaluate", {}, True),
    "report": CommandEntry("write an HTML page about evaluated runs", "report"),
    "compare": CommandEntry("statistics of strategies over seeds, and a regression gate", "compare"),
    "study": CommandEntry("compare strategies on the same tasks", "study", {}, True),
    "bench": CommandEntry(
        "measure speed, memory and reliability",
        subcommands={
            "train": CommandEntry("a training step, against the plain path", "bench_train"),
            "distill": CommandEntry("what strategies keep of earlier tasks, without rollouts", "bench_distill"),
            "data": CommandEntry("reading windows, and the trainer's memory over many tasks", "bench_data"),
            "sim": CommandEntry("control steps per second, against LIBERO's wrapper", "bench_sim"),
            "experts": CommandEntry("success of the scripted experts", "bench_experts", {}, True),
            "node": CommandEntry("latency and memory of the policy node over ROS 2", "bench_node"),
            "record": CommandEntry("losses and CPU share of the recorder", "bench_record"),
            "soak": CommandEntry("the whole system over an hour", "bench_soak"),
        },
    ),
    "run": CommandEntry("start simulator and policy as ROS 2 nodes, until Ctrl-C", "run"),
    "replay": CommandEntry("move the arm through a recorded episode", "replay"),
    "dashboard": CommandEntry("web page of a running policy: cameras, stop, instructions, recording", "dashboard"),
    "instruct": CommandEntry("send an instruction to a running policy and print its status", "instruct"),
    "service": CommandEntry("call services of running nodes", "service"),
}
SECTIONS = {
    "first steps": ("demo", "info"),
    "data": ("tasks", "collect", "import", "export", "data", "bag"),
    "learning": ("train", "learn", "promote", "rollback"),
    "evaluation": ("evaluate", "report", "compare", "study", "bench"),
    "robot": ("run", "replay", "dashboard", "instruct", "service"),
}
# What the operating system reports about a path that the user gave, or about a full disk.
USER_ERRNOS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
}


def main() -> None:
    """The console script."""
    os.environ.update(wait_settings(os.environ))  # OpenMP reads them when torch is imported
    try:
        if "_ARGCOMPLETE" in os.environ:
            complete()
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, `head` for example, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def run(argv: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return the exit status."""
    entry = None
    try:
        name, entry, words = find(argv)
        if entry is None or entry.subcommands:
            print(help_page(name, entry))
            return 0 if words else 2
        module = load(entry)
        options = make_parser(name, module, words).parse_args()
        return module.run(options) or 0
    except UserError as error:
        print(f"{ERROR} {error}", file=sys.stderr)
        return error.exit_status
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("m2distill_"):
            raise
        print(
            f"{ERROR} this command needs the Python module {error.name}, which is not installed; "
            "pip install 'm2distill[train,sim]' has all that needs no ROS 2",
            file=sys.stderr,
        )
        return 2
    except OSError as error:
        if error.errno not in USER_ERRNOS:  # a closed pipe too, which main() handles
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"{ERROR} {where}{error.strerror}; choose another path, or make this one usable", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; repeat the same command to continue" if entry and entry.resumable else ""
        print(f"m2distill: interrupted{hint}", file=sys.stderr)
        return 130
    except SystemExit as end:  # argparse ends so after --help
        return end.code if isinstance(end.code, int) else 0


def find(argv: Sequence[str]) -> tuple[str, CommandEntry | None, list[str]]:
    """The command that a command line names, its entry and the words after it. Raises UserError.

    The entry is None, or has subcommands, where the line asks for a list of commands. That list was asked for by
    `--help` if words remain.
    """
    name, entry, entries, words = "m2distill", None, COMMANDS, list(argv)
    while entries:
        if words and words[0] in ("--version", "-V") and entry is None:
            from m2distill_training.utils.installation import version

            print(f"m2distill {version()}")
            raise SystemExit(0)
        if not words or words[0] in ("-h", "--help"):
            return name, entry, words
        if words[0].startswith("-"):
            raise UserError(unknown_name("option", words[0], ("--help",) if entry else ("--help", "--version")))
        if words[0] not in entries:
            raise UserError(unknown_name("command", words[0], entries))
        name, entry, words = f"{name} {words[0]}", entries[words[0]], words[1:]
        entries = entry.subcommands
    return name, entry, [part for word in words for part in _numbers(word)]


def _numbers(word: str) -> list[str]:
    """`--tasks 0,1` is read as `--tasks 0 1`."""
    return word.split(",") if re.fullmatch(r"\d+(,\d+)+", word) else [word]


def load(entry: CommandEntry) -> ModuleType:
    """The module of a command."""
    return import_module(f"m2distill_training.cli.{entry.module}")


def make_parser(name: str, module: ModuleType, words: Sequence[str]) -> Parser:
    """The parser of the command `name`, which is to read `words`."""
    parser = Parser(name, module.DESCRIPTION, module.EXAMPLES, words)
    module.add_arguments(parser)
    return parser


def leaves() -> Iterator[tuple[str, CommandEntry]]:
    """Every command that can be run, as `import bag`, with its entry."""
    for name, entry in COMMANDS.items():
        if entry.subcommands:
            yield from ((f"{name} {inner}", each) for inner, each in entry.subcommands.items())
        else:
            yield name, entry


def help_page(name: str, entry: CommandEntry | None) -> str:
    """The list of all commands, or of those of one group."""
    lines = [f"usage: {name} COMMAND [options]   ({name} COMMAND --help lists the options)", ""]
    if entry is not None:
        lines += [entry.summary, "", *_listed(entry.subcommands)]
        return "\n".join(lines)
    for title, names in SECTIONS.items():
        lines += [title, *_listed({each: COMMANDS[each] for each in names}), ""]
    return "\n".join([*lines, f"m2distill --version prints the version, {ISSUE_HINT}."])


def _listed(entries: dict[str, CommandEntry]) -> list[str]:
    width = max(10, *(len(name) + 2 for name in entries))
    return [f"  {name:{width}}{entry.summary}" for name, entry in entries.items()]


def complete() -> None:
    """Answer a shell that completes a command line (argcomplete), and end the process."""
    try:
        import argcomplete
    except ImportError:
        return
    words = os.environ.get("COMP_LINE", "").split()[1:]
    argcomplete.autocomplete(_tree(words), always_complete_options=False)


def _tree(words: Sequence[str]) -> Parser:
    """All commands in one parser; only the command that `words` name has its options, the others cost nothing."""
    top = Parser("m2distill")
    top.add_argument("--version", action="store_true", help="print the version")
    _grow(top, COMMANDS, list(words), "m2distill")
    return top


def _grow(parser: Parser, entries: dict[str, CommandEntry], words: list[str], prog: str) -> None:
    commands = parser.add_subparsers(dest="command")
    for name, entry in entries.items():
        inner = commands.add_parser(name, prog=f"{prog} {name}", help=entry.summary)
        if words[:1] != [name]:
            continue
        if entry.subcommands:
            _grow(inner, entry.subcommands, words[1:], f"{prog} {name}")
        else:
            inner.words = words[1:]
            load(entry).add_arguments(inner)
