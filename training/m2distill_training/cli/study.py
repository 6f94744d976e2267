"""The command `m2distill study`."""

import argparse
from pathlib import Path

from m2distill_policy.suites import DEFAULT_SUITE, EXPERT_SUITES, listed
from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_demos, add_episodes, add_max_steps, add_workers

DESCRIPTION = """Learn the same tasks by several strategies, evaluate each after every stage, and compare.

Variants: the strategies finetune, er, m2distill, relabel and multitask; no_image, no_text, no_extra, no_policy:
m2distill without one of its four terms; and strategies of your own, by name or as module:Class.

Every finished run and episode is kept, so the same command continues after
Ctrl-C; another command can add variants or seeds to a study."""
EXAMPLES = ("m2distill study --out runs/study --variants finetune er m2distill --seeds 0 1",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder of everything that it writes")
    parser.add_argument("--variants", nargs="+", default=["finetune", "er", "m2distill"], help="what to compare")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1],
        help="of initial weights, random draws and replayed demonstrations; the demonstrations are the same",
    )
    parser.add_argument(
        "--suite",
        default=DEFAULT_SUITE,
        help=f"a suite with a scripted expert: {listed(EXPERT_SUITES)}",
    )
    parser.add_argument(
        "--tasks",
        type=int,
        nargs="+",
        default=[0, 1, 2, 3, 4],
        help="task numbers in the order of learning, one stage each",
    )
    add_demos(parser, 40)
    parser.add_argument(
        "--replay", type=int, default=2, help="demonstrations of every earlier task that er and m2distill keep"
    )
    parser.add_argument(
        "--first-budget",
        type=int,
        default=4000,
        help="gradient steps for the first task, which is learned from scratch",
    )
    parser.add_argument("--budget", type=int, default=1000, help="gradient steps for each further task")
    add_episodes(parser, 20, per="task and checkpoint")
    add_max_steps(parser)
    parser.add_argument(
        "--curve-points",
        type=int,
        default=2,
        help="parts into which the learning of a stage is divided for LIBERO's forward transfer; 0: none",
    )
    parser.add_argument("--preset", default="small", help="of training: small, libero or debug")
    add_workers(parser)


def run(options: argparse.Namespace) -> None:
    from m2distill_training.experiments.study import Study, study

    study(
        options.out,
        Study(
            suite=options.suite,
            tasks=tuple(options.tasks),
            demos=options.demos,
            replay=options.replay,
            first_budget=options.first_budget,
            budget=options.budget,
            episodes=options.episodes,
            max_steps=options.max_steps,
            curve_points=options.curve_points,
            preset=options.preset,
        ),
        tuple(options.variants),
        tuple(options.seeds),
        options.workers,
    )
    print(f"report: {options.out / 'report.html'}")
