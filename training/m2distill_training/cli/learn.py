"""The command `m2distill learn`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_cache, add_device

DESCRIPTION = """Teach a run one more task from new demonstrations; the files of earlier tasks are not needed.

The teacher is the run's last checkpoint, and the replayed demonstrations come from the run's own memory. The deployed
checkpoint does not change: the new one is used after m2distill promote. The same command continues after Ctrl-C."""
EXAMPLES = (
    "m2distill learn --run runs/kitchen --data data/new_task.hdf5",
    "m2distill learn --run runs/kitchen --data data/more_of_new_task.hdf5 --again",
)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="run folder, made by m2distill train")
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="the HDF5 file with demonstrations of the new task"
    )
    parser.add_argument(
        "--strategy",
        help="decoders and networks leave earlier tasks as they are; others (finetune, er ...) are controls; default: "
        "that of a run with decoders, else m2distill",
    )
    parser.add_argument(
        "--held-out",
        type=int,
        default=1,
        help="demonstrations that are not learned; m2distill promote judges checkpoints by them without a simulation",
    )
    parser.add_argument("--instruction", help="replaces the instruction in the file")
    parser.add_argument(
        "--again",
        action="store_true",
        help="learn the run's last instruction again, from other demonstrations, for instance after m2distill promote "
        "rejected it; the stage must not have been deployed, and moves to RUN/replaced",
    )
    add_device(parser)
    add_cache(parser)


def run(options: argparse.Namespace) -> None:
    from m2distill_policy.errors import UserError, require_at_least

    if len(options.data) != 1:
        raise UserError(
            f"--data has {len(options.data)} files, expected one: every task is learned by its own command. "
            f"Begin with --data {options.data[0]}"
        )
    require_at_least(0, held_out=options.held_out)

    from m2distill_training.cli.progress import show_training
    from m2distill_training.engine.continue_run import learn
    from m2distill_training.utils.device import usable_device

    device = usable_device(options.device)
    with show_training(options.strategy or "learn") as on_step:
        stage = learn(
            options.run,
            options.data[0],
            strategy=options.strategy,
            held_out=options.held_out,
            instruction=options.instruction,
            again=options.again,
            device=device,
            cache=options.cache,
            on_step=on_step,
        )
    print(f"learned: {options.run / 'stages' / str(stage) / 'checkpoint'}")
    print(f"next: m2distill promote --run {options.run}")
