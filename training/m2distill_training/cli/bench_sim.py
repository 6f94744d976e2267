"""The command `m2distill bench sim`."""

import argparse

from m2distill_policy.suites import DEFAULT_SUITE
from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_image_size, add_json

DESCRIPTION = """Measure control steps per second, each with an image from both cameras: against LIBERO's
OffScreenRenderEnv on the same assets, in turns; then two processes against one; then the CPU time of evaluated
episodes of the starter policy, with several simulators that share passes of the network against one alone."""
EXAMPLES = ("m2distill bench sim --json > sim.json",)


def add_arguments(parser: Parser) -> None:
    add_json(parser)
    parser.add_argument(
        "--quick", action="store_true", help="few steps of small images: a smoke test without meaningful times"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="blocks of each kind, after one warm-up; the median counts"
    )
    parser.add_argument("--steps", type=int, default=40, help="control steps in a block")
    add_image_size(parser)
    parser.add_argument("--suite", default=DEFAULT_SUITE, help="suite of the task")
    parser.add_argument("--task", type=int, default=0, help="its number in the suite")
    parser.add_argument(
        "--assets",
        nargs="+",
        default=["builtin"],
        help="builtin, installed, hub or folders, each compared with LIBERO's wrapper; two processes use the first",
    )


def run(options: argparse.Namespace) -> None:
    from m2distill_training.bench.sim import bench_sim

    bench_sim(
        options.json,
        options.quick,
        options.repeats,
        options.steps,
        options.image_size_px,
        options.suite,
        options.task,
        tuple(options.assets),
    )
