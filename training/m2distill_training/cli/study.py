"""The command `m2distill study`."""

import argparse
import re
from pathlib import Path

from m2distill_policy.errors import UserError
from m2distill_policy.suites import DEFAULT_SUITE, EXPERT_SUITES, listed
from m2distill_policy.utils.argument_parser import Parser
from m2distill_training.cli.options import add_demos, add_environments, add_episodes, add_max_steps, add_spreading

DESCRIPTION = """Learn the same tasks by several strategies, evaluate each after every stage, and compare.

PLAN.yaml names strategies with hyper-parameters, seeds, suites or folders of HDF5 files, protocol, preset, budgets and
device. The options are a short form for one suite with a scripted expert.

Variants: the strategies finetune, er, m2distill, relabel and multitask; no_image, no_text, no_extra, no_policy:
m2distill without one of its four terms; and strategies of your own, by name or as module:Class.

Every finished stage and episode is kept, so the same command continues after
Ctrl-C; another command can add variants or seeds to a study."""
EXAMPLES = (
    "m2distill study --out runs/study --variants finetune er m2distill --seeds 0 1",
    "m2distill study plan.yaml --out runs/study --cluster auto --for 160m",
    "m2distill study plan.yaml --out runs/study --only er-0 m2distill-0",
    "m2distill study --status runs/study",
)
SECONDS = {"s": 1, "m": 60, "h": 3600}
OTHERS = ("plan", "out", "status", "limit", "only", "workers", "cluster")  # options that a plan does not replace


def add_arguments(parser: Parser) -> None:
    parser.add_argument("plan", nargs="?", type=Path, metavar="PLAN.yaml", help="what is studied, in place of options")
    _add_running(parser)
    add_spreading(parser)
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
    add_environments(parser)
    parser.add_argument(
        "--curve-points",
        type=int,
        default=2,
        help="parts into which the learning of a stage is divided for LIBERO's forward transfer; 0: none",
    )
    parser.add_argument("--preset", default="small", help="of training: small, libero or debug")
    defaults = {action.dest: action.default for action in parser._actions if action.dest not in ("help", *OTHERS)}
    parser.set_defaults(short_form=defaults)


def _add_running(parser: Parser) -> None:
    """Add where, what and how long of a plan is run."""
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder of everything that it writes")
    parser.add_argument(
        "--status", type=Path, metavar="OUT", help="print what is done, running and left in this folder, and end"
    )
    parser.add_argument(
        "--for",
        dest="limit",
        type=_duration,
        metavar="TIME",
        help="end by itself after this time, such as 90s, 160m or 8h, between jobs or at a saved state of a training",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="RUN",
        help="do only these runs of the plan, named VARIANT-SEED as their folders, or SUITE/VARIANT-SEED",
    )


def run(options: argparse.Namespace) -> None:
    if options.status is not None:
        from m2distill_training.experiments.study_status import describe_status

        print(describe_status(options.status))
        return
    from m2distill_training.experiments.study import study
    from m2distill_training.experiments.study_plan import make_plan, read_plan

    if options.plan is None:
        plan = make_plan(_short_form(options), "m2distill study")
    else:
        given = [name for name, value in options.short_form.items() if getattr(options, name) != value]
        if given:
            raise UserError(f"--{given[0].replace('_', '-')} is given beside {options.plan}; write it in the plan")
        plan = read_plan(options.plan)
    complete = study(
        options.out,
        plan,
        workers=options.workers,
        cluster=options.cluster,
        limit_s=options.limit,
        only=options.only,
    )
    if not complete:
        print(f"the time is over; repeat the command to continue, see m2distill study --status {options.out}")
        return
    for results in sorted(options.out.glob("**/results.md")):
        print(results.read_text())
        print(f"report: {results.with_name('report.html')}")
    print(f"next: m2distill compare {options.out}")


def _short_form(options: argparse.Namespace) -> dict:
    return {
        "strategies": options.variants,
        "seeds": options.seeds,
        "suites": [{"suite": options.suite, "tasks": options.tasks, "demos": options.demos}],
        "preset": options.preset,
        "replay": options.replay,
        "first_budget": f"{options.first_budget} steps",
        "budget": f"{options.budget} steps",
        "episodes": options.episodes,
        "max_steps": options.max_steps,
        "environments": options.environments,
        "curve_points": options.curve_points,
    }


def _duration(text: str) -> float:
    """Read 90s, 160m or 8h as seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if match is None:
        raise UserError(f"--for is {text!r}, expected a number with s, m or h, such as 160m")
    return float(match[1]) * SECONDS[match[2]]
