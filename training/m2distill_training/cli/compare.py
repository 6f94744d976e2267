"""The command `m2distill compare`."""

import argparse
import math
import sys
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser

FORMATS = ("text", "markdown", "latex", "csv", "json")
METRICS = ("fwt", "nbt", "auc", "final", "normalised_nbt")
DESCRIPTION = """Compare strategies over seeds: differences of lifelong metrics with 95 % intervals, effect sizes and
p-values.

Runs that differ only in their seed form a group, called by its strategy or, in a study, by its variant. Groups are
paired by seed, task and start. All runs must have been evaluated on the same tasks, starts and settings.

With --gate the exit status is 1 if the candidate may be worse than the baseline by more than the margin."""
EXAMPLES = (
    "m2distill compare runs/study --baseline er --candidate m2distill",
    "m2distill compare runs/er-0 runs/er-1 runs/mine-0 runs/mine-1 --metrics auc --gate auc:0.05",
    "m2distill compare before=runs/before after=runs/after --format markdown --out compared.md",
)


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="evaluated run folders or study folders; NAME=FOLDER names a group"
    )
    parser.add_argument("--baseline", help="group that the others are compared with; default: that of the first run")
    parser.add_argument(
        "--candidate", action="append", default=[], help="group to compare, may be repeated; default: all others"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        help=f"of {', '.join(METRICS)}, and each with the suffix _per_stage; default: "
        "those per task, and per stage if a stage has several tasks",
    )
    parser.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="METRIC:MARGIN",
        help="non-inferiority: exit 1 if the lower end of the interval, signed so that higher is better, is below "
        "-MARGIN (0.05: 5 percentage points); may be repeated",
    )
    parser.add_argument("--resamples", type=int, default=10_000, help="number of bootstrap resamples")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling")
    parser.add_argument("--format", choices=FORMATS, default="text", help="of the output")
    parser.add_argument("--out", type=Path, help="file for the output; the terminal then shows the table")
    parser.add_argument(
        "--figure", type=Path, help="draw the differences of every seed to this .svg, .pdf or .png file"
    )


def run(options: argparse.Namespace) -> int:
    from m2distill_training.evaluation.compare import compare, failed_gates
    from m2distill_training.report.comparison import check_figure, render, write_figure
    from m2distill_training.runs.records import write_atomic

    gates = dict(map(_gate, options.gate))
    if options.figure:
        check_figure(options.figure)
    result = compare(
        options.runs,
        baseline=options.baseline,
        candidates=options.candidate,
        metrics=options.metrics,
        resamples=options.resamples,
        seed=options.seed,
    )
    failed = failed_gates(result, gates)
    print(render(result, "text" if options.out else options.format), end="")
    if options.out:
        write_atomic(options.out, render(result, options.format).encode())
        print(options.out)
    if options.figure:
        write_figure(result, options.figure)
        print(options.figure, file=sys.stderr if options.format in ("csv", "json") and not options.out else sys.stdout)
    for line in failed:
        print(line, file=sys.stderr)
    if options.format == "text" and not gates:
        print("next: --figure FILE draws it, and --gate METRIC:MARGIN makes it a regression gate")
    return 1 if failed else 0


def _gate(text: str) -> tuple[str, float]:
    """Read METRIC:MARGIN. Raises UserError."""
    from m2distill_policy.errors import UserError

    metric, _, margin = text.rpartition(":")
    try:
        value = float(margin)
    except ValueError:
        value = math.nan
    if not metric or not 0 <= value <= 1:
        raise UserError(f"gate {text!r} given, expected METRIC:MARGIN with a margin from 0 to 1, such as auc:0.05")
    return metric, value
