"""The console script `m2distill`. Commands import what they need when they run, so that --help is quick.

Exit codes: 0 done, 2 something the user can mend (one line on stderr), 130 interrupted.
"""

import errno
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module

from m2distill_policy.errors import UserError, unknown_name

HERE = "m2distill_training"


@dataclass(frozen=True)
class CommandEntry:
    """`function` is module:name; tyro makes the options from its parameters, and --help from its docstring."""

    text: str
    function: str = ""
    subcommands: dict[str, str] = field(default_factory=dict)  # in place of `function`: name -> module:name
    example: str = ""  # of one of the subcommands
    reads_arguments: bool = False  # `function` takes the command line itself, a list of words, and may return exit code
    goes_on: bool = False  # after Ctrl-C the same command goes on where it was; train says how by itself


COMMANDS = {
    "demo": CommandEntry(
        "the whole promise in half an hour: two tasks learned one after the other, obeyed over ROS 2",
        f"{HERE}.experiments.demo:demo",
        goes_on=True,
    ),
    "tasks": CommandEntry(
        "the tasks of a suite, as a list or as an image", "m2distill_sim.contact_sheet:tasks_command"
    ),
    "collect": CommandEntry(
        "scripted demonstrations in simulation -> LIBERO-format HDF5 files",
        "m2distill_sim.collect:collect_command",
        goes_on=True,
    ),
    "train": CommandEntry(
        "learn a sequence of tasks; a checkpoint after every one",
        f"{HERE}.cli.train:train_command",
        reads_arguments=True,
    ),
    "learn": CommandEntry(
        "teach a run one more task, from its own memory and new demonstrations",
        f"{HERE}.cli.routine:learn_command",
        goes_on=True,
    ),
    "promote": CommandEntry(
        "let the robot follow a checkpoint, once it is proven that nothing was forgotten",
        f"{HERE}.cli.routine:promote_command",
        goes_on=True,
    ),
    "rollback": CommandEntry("let the robot follow the checkpoint before", f"{HERE}.cli.routine:rollback_command"),
    "evaluate": CommandEntry(
        "closed-loop episodes in simulation; success matrix and forgetting",
        f"{HERE}.cli.evaluate:evaluate_command",
        goes_on=True,
    ),
    "study": CommandEntry(
        "several strategies on the same tasks, compared; goes on where it was",
        f"{HERE}.experiments.study:study",
        goes_on=True,
    ),
    "report": CommandEntry("one HTML page from a run folder", f"{HERE}.cli.report:report_command"),
    "bench": CommandEntry(
        "how fast it is, against the plain path where there is one, and how long a whole system lasts",
        subcommands={
            name: f"{HERE}.bench.{name}:bench_{name}"
            for name in ("train", "data", "sim", "experts", "node", "record", "soak")
        },
        example="m2distill bench train --json > train.json",
    ),
    "run": CommandEntry(
        "simulator and policy as ROS 2 nodes, until Ctrl-C",
        "m2distill_policy.bringup.system:main",
        reads_arguments=True,
    ),
    "instruct": CommandEntry(
        "what a running policy shall do, and what it answers",
        "m2distill_policy.bringup.client_cli:instruct",
        reads_arguments=True,
    ),
    "service": CommandEntry(
        "services of running nodes, parameters set before",
        "m2distill_policy.bringup.client_cli:service",
        reads_arguments=True,
    ),
    "import": CommandEntry(
        "bag: recorded episodes; lerobot: a dataset; libero-checkpoint: LIBERO's own; robosuite-demos: by people",
        subcommands={
            "libero-checkpoint": f"{HERE}.cli.import_data:libero_checkpoint_command",
            "robosuite-demos": f"{HERE}.cli.import_data:robosuite_demos_command",
            "bag": f"{HERE}.cli.bag:import_bag_command",
            "lerobot": f"{HERE}.cli.lerobot:import_lerobot_command",
        },
    ),
    "export": CommandEntry(
        "lerobot: demonstrations as a LeRobot dataset",
        subcommands={"lerobot": f"{HERE}.cli.lerobot:export_lerobot_command"},
    ),
    "bag": CommandEntry(
        "recover: finish the episodes that a recorder which died has left open",
        subcommands={"recover": f"{HERE}.cli.bag:recover_command"},
    ),
}
# What the system says of a path that the user gave, or of a full disk. Any other OSError is a defect of ours.
REFUSALS = {
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
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read what we print, `head` say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Run one command line (without the program's name); returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: m2distill COMMAND ...   (m2distill COMMAND --help for its options)\n")
        print("\n".join(f"  {name:10}{command.text}" for name, command in COMMANDS.items()))
        return 0 if argv else 2
    name, rest = argv[0], _spread_lists(argv[1:])
    try:
        if name not in COMMANDS:
            raise UserError(unknown_name("command", name, COMMANDS))
        return _start(name, rest)
    except UserError as error:
        print(f"m2distill: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(f"{HERE}."):
            raise
        print(
            f"m2distill: {name} needs the Python module {error.name}, which is not installed; "
            "pip install 'm2distill[train,sim]' has all that needs no ROS 2",
            file=sys.stderr,
        )
        return 2
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"m2distill: {where}{error.strerror}; choose another path, or make this one usable", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; the same command goes on where it was" if COMMANDS[name].goes_on else ""
        print(f"m2distill: interrupted{hint}", file=sys.stderr)
        return 130


def _start(name: str, argv: list[str]) -> int:
    command = COMMANDS[name]
    if command.reads_arguments:
        return _imported(command.function)(argv) or 0
    import tyro

    if command.function:
        tyro.cli(_imported(command.function), args=argv, prog=f"m2distill {name}")
    else:
        functions = {each: _imported(function) for each, function in command.subcommands.items()}
        tyro.extras.subcommand_cli_from_dict(
            functions,
            args=argv,
            prog=f"m2distill {name}",
            description=f"Example: {command.example}" if command.example else None,
        )
    return 0


def _imported(function: str) -> Callable:
    module, name = function.split(":")
    return getattr(import_module(module), name)


def _spread_lists(argv: list[str]) -> list[str]:
    """`--tasks 0,1` means `--tasks 0 1`."""
    return [part for word in argv for part in (word.split(",") if re.fullmatch(r"\d+(,\d+)+", word) else [word])]
