"""The command `m2distill collect`."""

import argparse
from pathlib import Path

from m2distill_policy.suites import DEFAULT_SUITE, EXPERT_SUITES, listed
from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import (
    add_assets,
    add_cameras,
    add_demos,
    add_image_size,
    add_spreading,
    chosen_cameras,
)

DESCRIPTION = """Record demonstrations of a scripted expert in simulation: one LIBERO-format HDF5 file per task.

The expert's actions are disturbed now and then, so that demonstrations show recoveries; failed attempts are not kept.
The same command continues after Ctrl-C."""
EXAMPLES = ("m2distill collect --suite libero_object --tasks 0 1 --demos 40 --out data/demos",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--suite", default=DEFAULT_SUITE, help=listed(EXPERT_SUITES))
    parser.add_argument("--tasks", type=int, nargs="+", default=[0, 1], help="task numbers in the suite, from 0")
    add_demos(parser, 50)
    parser.add_argument("--out", type=Path, default=Path("data/demos"), help="folder of the files, <task>_demo.hdf5")
    add_spreading(parser)
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the expert's variation, the disturbances, and placements beyond LIBERO's initial states",
    )
    add_image_size(parser)
    add_assets(parser)
    add_cameras(parser)


def run(options: argparse.Namespace) -> None:
    from m2distill_sim.assets import find_assets
    from m2distill_training.experiments.collect import collect

    files = collect(
        options.suite,
        options.tasks,
        options.demos,
        options.out,
        workers=options.workers,
        cluster=options.cluster,
        seed=options.seed,
        size_px=options.image_size_px,
        assets=find_assets(options.assets),
        cameras=chosen_cameras(options),
    )
    for path in files:
        print(path)
    print(f"next: m2distill train --data {' '.join(map(str, files))} --out runs/{options.out.name}")
