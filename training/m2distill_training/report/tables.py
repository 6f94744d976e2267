"""Tables of a report for a paper: CSV with numbers between 0 and 1, and LaTeX for the package booktabs in percent."""

import csv
import io
from collections.abc import Sequence

from m2distill_training.report.figures import METRICS
from m2distill_training.report.latex import latex_text
from m2distill_training.report.runs import ReportedRun, task_titles


def result_tables(runs: Sequence[ReportedRun]) -> dict[str, str]:
    """Return {file name: content}: the metrics of every run, and the success on every task after the last stage."""
    metrics = [
        [run.label, str(run.config["seed"]), *(_numbers(run.evaluation, name) for name in METRICS)] for run in runs
    ]
    titles = task_titles(list(runs))
    tasks = [
        [run.label, titles[key], (task["success_rate"], *task["wilson_95"]), str(task["episodes"])]
        for run in runs
        for key, task in run.tasks().items()
    ]
    return {
        "metrics.csv": _csv(["run", "seed", *METRICS], metrics),
        "metrics.tex": _latex(["run", "seed", *(name.upper() for name in METRICS)], metrics),
        "tasks.csv": _csv(["run", "instruction", "success", "episodes"], tasks),
        "tasks.tex": _latex(["run", "instruction", "success", "episodes"], tasks),
    }


def _numbers(evaluation: dict, name: str) -> tuple:
    value, interval = evaluation["metrics"][name], evaluation["intervals_95"][name]
    return (None, None, None) if value is None else (value, *interval)


def _csv(head: list[str], rows: list[list]) -> str:
    """Return one line per row; a value with an interval has three columns."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    measured = [isinstance(x, tuple) for x in rows[0]] if rows else [False] * len(head)
    names = [[n, f"{n}_low_95", f"{n}_high_95"] if m else [n] for n, m in zip(head, measured, strict=True)]
    writer.writerow([name for group in names for name in group])
    for row in rows:
        writer.writerow([x for value in row for x in (value if isinstance(value, tuple) else (value,))])
    return buffer.getvalue()


def _latex(head: list[str], rows: list[list]) -> str:
    measured = [isinstance(x, tuple) for x in rows[0]] if rows else [False] * len(head)
    columns = "".join("r" if m or name in ("seed", "episodes") else "l" for name, m in zip(head, measured, strict=True))
    lines = [" & ".join(_cell(x) for x in row) + r" \\" for row in [head, *rows]]
    begin = ["% percent, with 95 % intervals", f"\\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule"]
    return "\n".join([*begin, *lines[1:], r"\bottomrule", r"\end{tabular}", ""])


def _cell(value: str | tuple) -> str:
    if not isinstance(value, tuple):
        return latex_text(value)
    if value[0] is None:
        return "--"
    middle, low, high = (f"${100 * x:.1f}$" for x in value)
    return f"{middle} ({low} to {high})"
