"""The command `m2distill train`."""

import argparse
import dataclasses
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path

from m2distill_policy.cameras import read_cameras
from m2distill_policy.errors import UserError
from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.dataclass_options import add_dataclass_options, option_values, read_dataclass_options
from m2distill_training.cli.options import add_cache, add_cameras, add_device, add_track
from m2distill_training.config import TrainConfig
from m2distill_training.engine.protocols import PROTOCOLS, with_protocol
from m2distill_training.presets import PRESETS, preset
from m2distill_training.strategies.registry import check_options, option_prefix

DESCRIPTION = """Learn the given tasks one after the other, and keep a checkpoint after each in OUT/.

--preset small (64 px, minutes on two CPU cores), libero (LIBERO's network and training) or debug (seconds, learns
nothing) sets every value below; any of them can be overridden. --protocol ten_steps or base6_plus4 sets those that the
benchmark prescribes.

--strategy is finetune, er, ewc, packnet, m2distill, relabel, recall, stored, spread, latent_replay, latent_recall,
perturb, latent_perturb, average, multitask, the name of an installed plug-in, or module:Class for a class in a file
of yours; its hyper-parameters are among the options below.

The same command continues after Ctrl-C or a crash; a finished run is left as it is."""
EXAMPLES = (
    "m2distill train --preset small --data data/demos/*.hdf5 --out runs/two_tasks --budget 1000",
    "# on several GPUs or machines, the batch shared among the processes:",
    "torchrun --nproc-per-node 4 -m m2distill_training train --preset libero --data data/demos/*.hdf5 --out runs/ten",
)
# Dotted field -> the name that other commands use for it.
ALIASES = {"optim.budget": ["budget"], "replay.demos_per_task": ["replay"], "image_px": ["image-size-px"]}


def add_arguments(parser: Parser) -> None:
    name = _value_of(parser.words, "--preset", "small")
    protocol = _value_of(parser.words, "--protocol", "custom")
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        help="HDF5 files, one per task, in the order of learning; a folder stands for its *.hdf5",
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--preset", default=name, help=f"values of all options below: {', '.join(PRESETS)}")
    parser.add_argument(
        "--protocol", default=protocol, help=f"how tasks are divided into stages: {', '.join(PROTOCOLS)}"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="require that OUT holds a run; without it a run is continued if there is one",
    )
    parser.add_argument("--start-from", type=Path, help="another run's checkpoint in place of the first stage")
    add_device(parser)
    add_cache(parser)
    add_track(parser)
    parser.add_argument("--suite", help="learn the files in the order and with the instructions of this LIBERO suite")
    parser.add_argument(
        "--tasks", type=int, nargs="+", default=[], help="with --suite: only these of its tasks, in this order"
    )
    add_cameras(parser)
    strategy = _value_of(parser.words, "--strategy", "m2distill")
    cameras = _value_of(parser.words, "--cameras", "")
    settings = with_protocol(preset(name, strategy), protocol)
    if cameras:
        settings = dataclasses.replace(settings, cameras=read_cameras(Path(cameras)))
    check_options(strategy, parser.words)
    parser.set_defaults(settings=settings)
    add_dataclass_options(
        parser,
        settings,
        aliases=ALIASES,
        skip=("preset", "strategy_config", "cameras", "model.decoders", "model.own_encoders"),
    )
    add_dataclass_options(parser, settings.strategy_config, option_prefix(type(settings.strategy_config)))


def run(options: argparse.Namespace) -> None:
    config = config_of(options)

    from m2distill_training.cli.progress import show_training
    from m2distill_training.engine.distributed import started_by_torchrun
    from m2distill_training.engine.train import train
    from m2distill_training.engine.trainer import TrainProgress
    from m2distill_training.experiments.suite_files import in_suite_order
    from m2distill_training.runs.tracking import RunTracking
    from m2distill_training.utils.device import usable_device

    files, instructions = data_files(options.data), None
    if options.suite is not None:
        files, instructions = in_suite_order(files, options.suite, options.tasks)
    elif options.tasks:
        raise UserError("--tasks are numbers of a suite's tasks; name the suite with --suite")
    device = usable_device(options.device)
    ranks = started_by_torchrun()

    def announce() -> None:
        if ranks.leads:
            processes = f", {ranks.size} processes" if ranks.size > 1 else ""
            print(f"training {config.strategy} ({options.preset}) on {device}{processes}", flush=True)

    tracking = RunTracking(options.out, options.track) if options.track and ranks.leads else None
    with (
        show_training(config.strategy) if ranks.leads else nullcontext(lambda progress: None) as show,
        nullcontext() if tracking is None else closing(tracking),
    ):

        def on_step(progress: TrainProgress) -> None:
            show(progress)
            if tracking is not None:
                tracking.sync()

        trained = train(
            config,
            files,
            options.out,
            resume=options.resume or (options.out / "config.json").is_file(),
            device=device,
            start_from=options.start_from,
            cache=options.cache,
            instructions=instructions,
            on_ready=announce,
            on_step=on_step,
        )
    if ranks.leads:
        print(f"done: {trained.path}")
        print(f"next: m2distill evaluate {trained.path}" + (f" --suite {options.suite}" if options.suite else ""))


def config_of(options: argparse.Namespace) -> TrainConfig:
    """The training configuration that parsed options describe. Raises ConfigError."""
    settings: TrainConfig = options.settings
    hyperparameters = settings.strategy_config
    config: TrainConfig = read_dataclass_options(settings, options)
    return config.with_strategy(
        config.strategy, **option_values(hyperparameters, options, option_prefix(type(hyperparameters)))
    )


def _value_of(words: Sequence[str], option: str, default: str) -> str:
    """The value of `--option value` or `--option=value` in a command line."""
    for i, word in enumerate(words):
        if word.startswith(f"{option}="):
            return word.split("=", 1)[1]
        if word == option and i + 1 < len(words):
            return words[i + 1]
    return default


def data_files(paths: Sequence[Path]) -> list[Path]:
    """The files that are named, and those of the folders that are named. Raises UserError for an empty folder."""
    files = []
    for path in paths:
        found = sorted(path.glob("[!.]*.hdf5")) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path} holds no *.hdf5 file; collect demonstrations into it or name another folder")
        files += found
    return files
