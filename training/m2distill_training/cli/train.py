"""The command `m2distill train`."""

import dataclasses
import shlex
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from m2distill_policy.cameras import Camera, read_cameras
from m2distill_policy.errors import UserError
from m2distill_training.config import TrainConfig
from m2distill_training.engine.protocols import with_protocol
from m2distill_training.experiments.suite_files import in_suite_order
from m2distill_training.presets import preset
from m2distill_training.strategies.registry import check_options, checked_config, config_class, option_prefix
from m2distill_training.utils.device import usable_device


@dataclass
class Arguments:
    """Learn the given tasks, one after the other, and keep a checkpoint after each in OUT/stages/.

    --preset small (64 px, minutes on two CPU cores), libero (LIBERO's network and training) or debug (seconds,
    learns nothing) gives every value below; any of them can be overridden. --protocol ten_steps or base6_plus4
    sets those that the benchmark prescribes.

    --strategy is finetune, er, ewc, packnet, m2distill, relabel, multitask, the name of an installed plug-in, or
    module:Class for a class in a file of yours; its hyper-parameters are among the options below. --cameras FILE
    lists the views, in YAML or JSON.

    Example: m2distill train --preset small --data data/demos/*.hdf5 --out runs/two_tasks --optim.budget 1000

    On several GPUs or machines, the batch shared among the processes:
    torchrun --nproc-per-node 4 -m m2distill_training train --preset libero --data data/demos/*.hdf5 --out runs/ten
    """

    data: tuple[Path, ...]  # HDF5 files, one per task, in the order of learning; a folder stands for its *.hdf5
    out: Path  # run folder
    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    resume: bool = False  # go on with the run in `out`
    start_from: Path | None = None  # another run's checkpoint in place of the first stage
    device: str = "auto"  # cpu, cuda, cuda:1 ...; auto takes a GPU when there is one, and says so
    cache: Path | None = None  # where decoded frames are kept; default: beside each data file
    suite: str | None = None  # learn the files in the order and with the instructions of this suite of LIBERO
    tasks: tuple[int, ...] = ()  # with --suite: only these of its tasks, in this order


def train_command(argv: list[str]) -> None:
    name, rest = _take_option(argv, "--preset", "small")
    protocol, rest = _take_option(rest, "--protocol", "custom")
    strategy, rest = _take_option(rest, "--strategy", "m2distill")
    cameras, rest = _take_option(rest, "--cameras", "")
    settings = with_protocol(preset(name, strategy), protocol)
    if cameras:
        settings = dataclasses.replace(settings, cameras=read_cameras(Path(cameras)))
    check_options(strategy, rest)
    arguments = tyro.cli(
        Arguments,
        args=rest,
        prog=f"m2distill train --preset {name} --strategy {strategy}",
        default=Arguments(tyro.MISSING, tyro.MISSING, _for_options(settings)),
    )

    from m2distill_training.cli.progress import show_training
    from m2distill_training.engine.distributed import started_by_torchrun
    from m2distill_training.engine.train import train

    config = _from_options(arguments.config)
    files, instructions = _files(arguments.data), None
    if arguments.suite is not None:
        files, instructions = in_suite_order(files, arguments.suite, arguments.tasks)
    elif arguments.tasks:
        raise UserError("--tasks are numbers of a suite's tasks; name the suite with --suite")
    device = usable_device(arguments.device)
    ranks = started_by_torchrun()
    if ranks.leads:
        print(f"training {config.strategy} ({name}) on {device}, {ranks.size} process(es)")
    try:
        with show_training(config.strategy) if ranks.leads else nullcontext(lambda progress: None) as on_step:
            run = train(
                config,
                files,
                arguments.out,
                resume=arguments.resume,
                device=device,
                start_from=arguments.start_from,
                cache=arguments.cache,
                instructions=instructions,
                on_step=on_step,
            )
    except KeyboardInterrupt:
        if ranks.leads and (arguments.out / "config.json").is_file():
            again = argv if arguments.resume else [*argv, "--resume"]
            print(f"state saved; go on with: m2distill train {shlex.join(again)}", file=sys.stderr)
        raise
    if ranks.leads:
        print(f"done: {run.path}")


def _for_options(settings: TrainConfig) -> TrainConfig:
    """Return the settings as an instance of a class whose fields tyro can make options of.

    The hyper-parameters of the strategy have its own type and the prefix of its options. Cameras come from a file, the
    strategy from an option read before.
    """
    values = settings.strategy_config
    checked = checked_config(settings.strategy)
    fields = [
        ("strategy", Annotated[str, tyro.conf.Suppress]),
        ("strategy_config", Annotated[checked, tyro.conf.arg(name=option_prefix(type(values)))]),
        ("cameras", Annotated[tuple[Camera, ...], tyro.conf.Suppress]),
    ]
    unchecked = {"__post_init__": lambda self: None}  # TrainConfig's own checks follow in _from_options
    cls = dataclasses.make_dataclass("TrainConfig", fields, bases=(TrainConfig,), namespace=unchecked, frozen=True)
    return cls(**{**vars(settings), "strategy_config": checked(**vars(values))})


def _from_options(options: TrainConfig) -> TrainConfig:
    values = config_class(options.strategy)(**vars(options.strategy_config))
    return TrainConfig(**{**vars(options), "strategy_config": values})


def _take_option(argv: list[str], option: str, default: str) -> tuple[str, list[str]]:
    """The value of `--option value` or `--option=value`, and the other arguments."""
    for i, argument in enumerate(argv):
        if argument.startswith(f"{option}="):
            return argument.split("=", 1)[1], argv[:i] + argv[i + 1 :]
        if argument == option and i + 1 < len(argv):
            return argv[i + 1], argv[:i] + argv[i + 2 :]
    return default, argv


def _files(paths: tuple[Path, ...]) -> list[Path]:
    files = []
    for path in paths:
        found = sorted(path.glob("*.hdf5")) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path} holds no *.hdf5 file; collect demonstrations into it or name another folder")
        files += found
    return files
