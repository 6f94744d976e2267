"""The command `m2distill report`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser

DESCRIPTION = """Write one self-contained HTML page: success matrix, loss curves and videos. Several runs are compared
side by side."""
EXAMPLES = ("m2distill report runs/m2distill runs/finetune --out compared.html",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "runs", type=Path, nargs="*", metavar="RUN", help="run folders, or folders that m2distill evaluate wrote"
    )
    parser.add_argument("--out", type=Path, help="the page; default: report.html in the first folder")
    parser.add_argument(
        "--drift", action="store_true", help="measure latent drift first, from checkpoints and demonstrations"
    )


def run(options: argparse.Namespace) -> None:
    from m2distill_policy.errors import UserError
    from m2distill_training.report import write_report

    if not options.runs:
        raise UserError("no run folder given; name the --out of m2distill train")
    if options.drift:
        from m2distill_training.evaluation.drift import measure_drift

        for path in options.runs:
            measure_drift(path)
    out = options.out or options.runs[0] / "report.html"
    write_report(out, options.runs)
    print(out)
    print(f"next: open {out} in a browser")
