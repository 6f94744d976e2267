"""The console script `m2distill`. Commands import what they need when they run, so that --help is quick.

Exit codes: 0 done, 2 something the user can mend (one line on stderr), 130 interrupted.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from m2distill_policy.errors import UserError, unknown_name

COMMANDS = {
    "demo": "the whole promise in half an hour: two tasks learned one after the other, obeyed over ROS 2",
    "collect": "scripted demonstrations in simulation -> LIBERO-format HDF5 files",
    "train": "learn a sequence of tasks; a checkpoint after every one",
    "evaluate": "closed-loop episodes in simulation; success matrix and forgetting",
    "report": "one HTML page from a run folder",
    "import": "import libero-checkpoint FILE.pth OUT: LIBERO's own checkpoint -> one of ours",
}


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line (without the program's name); returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: m2distill COMMAND ...   (m2distill COMMAND --help for its options)\n")
        print("\n".join(f"  {name:10}{text}" for name, text in COMMANDS.items()))
        return 0 if argv else 2
    command, rest = argv[0], argv[1:]
    try:
        if command not in COMMANDS:
            raise UserError(unknown_name("command", command, COMMANDS))
        globals()[f"_{command}"](rest)
    except UserError as error:
        print(f"m2distill: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resume = rest if "--resume" in rest else [*rest, "--resume"]
        hint = f"; go on with: m2distill train {shlex.join(resume)}" if command == "train" else ""
        print(f"m2distill: interrupted{hint}", file=sys.stderr)
        return 130
    return 0


def _train(argv: list[str]) -> None:
    import tyro

    from m2distill_training.config import TrainConfig
    from m2distill_training.presets import preset

    @dataclass
    class Arguments:
        """Learn the given tasks, one after the other. Every value of the preset can be overridden."""

        data: tuple[Path, ...]  # HDF5 files, one per task, in the order of learning; a folder stands for its *.hdf5
        out: Path  # run folder
        config: Annotated[TrainConfig, tyro.conf.arg(name="")]
        resume: bool = False  # go on with the run in `out`
        start_from: Path | None = None  # another run's checkpoint in place of the first step
        device: str = "auto"  # cpu, cuda, cuda:1 ...; auto takes a GPU when there is one, and says so
        cache: Path | None = None  # where decoded frames are kept; default: beside each data file

    name, rest = _take_option(argv, "--preset", "small")
    settings = preset(name)
    arguments = tyro.cli(Arguments, args=rest, prog=f"m2distill train --preset {name}",
                         default=Arguments(tyro.MISSING, tyro.MISSING, settings))

    from m2distill_training.loop import train
    from m2distill_training.progress import show_training

    device = _device(arguments.device)
    print(f"training {arguments.config.strategy} ({name}) on {device}")
    with show_training(arguments.config.strategy) as on_step:
        run = train(arguments.config, _files(arguments.data), arguments.out, resume=arguments.resume, device=device,
                    start_from=arguments.start_from, cache=arguments.cache, on_step=on_step)
    print(f"done: {run.path}")


def _take_option(argv: list[str], option: str, default: str) -> tuple[str, list[str]]:
    """The value of `--option value` or `--option=value`, and the other arguments."""
    for i, argument in enumerate(argv):
        if argument.startswith(f"{option}="):
            return argument.split("=", 1)[1], argv[:i] + argv[i + 1:]
        if argument == option and i + 1 < len(argv):
            return argv[i + 1], argv[:i] + argv[i + 2:]
    return default, argv


def _files(paths: tuple[Path, ...]) -> list[Path]:
    files = []
    for path in paths:
        found = sorted(path.glob("*.hdf5")) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path} holds no *.hdf5 file; collect demonstrations into it or name another folder")
        files += found
    return files


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}; use --device cpu") from None
    return name
