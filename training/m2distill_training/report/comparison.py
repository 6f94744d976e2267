"""Tables and figure of a comparison of strategies."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from m2distill_policy.errors import UserError
from m2distill_training.evaluation.compare import Comparison, ComparisonResult
from m2distill_training.evaluation.paired import METRICS
from m2distill_training.report.figures import fitted
from m2distill_training.report.latex import latex_text
from m2distill_training.report.styles import COLORS
from m2distill_training.runs.records import write_atomic

FIGURES = (".svg", ".png", ".pdf")
PNG_DPI = 160
HEAD = (
    "metric",
    "candidate",
    "baseline",
    "seeds",
    "candidate mean",
    "baseline mean",
    "difference (95 % interval)",
    "effect size",
    "p",
    "p, Holm",
)
CSV_HEAD = (
    "metric",
    "candidate",
    "baseline",
    "seeds",
    "candidate_mean",
    "baseline_mean",
    "difference",
    "low_95",
    "high_95",
    "effect_size",
    "p",
    "p_holm",
    "higher_is_better",
    "left_out",
)


def render(result: ComparisonResult, format_name: str) -> str:
    """Return the result in one of FORMATS, ending with a newline."""
    return FORMATS[format_name](result)


def write_figure(result: ComparisonResult, path: Path) -> None:
    """Draw the paired differences to an .svg, .pdf or .png file. Raises UserError."""
    check_figure(path)
    buffer = io.BytesIO()
    with rc_context({"text.parse_math": False, "svg.hashsalt": "m2distill"}):
        figure = paired_differences(result)
        if path.suffix == ".svg":
            FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
        elif path.suffix == ".pdf":
            FigureCanvasPdf(figure).print_pdf(buffer, metadata={"CreationDate": None})
        else:
            figure.dpi = PNG_DPI
            FigureCanvasAgg(figure).print_png(buffer)
    write_atomic(path, buffer.getvalue())


def check_figure(path: Path) -> None:
    """Raise UserError unless the file name is that of a figure."""
    if path.suffix not in FIGURES:
        raise UserError(f"figure {path} has the suffix {path.suffix!r}, expected {' or '.join(FIGURES)}")


def paired_differences(result: ComparisonResult) -> Figure:
    """Draw one panel per metric: a point per seed, the mean difference and its 95 % interval per candidate."""
    metrics = list(dict.fromkeys(x.metric for x in result.comparisons))
    candidates = list(dict.fromkeys(x.candidate for x in result.comparisons))
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(3.6 * columns, rows * (1.1 + 0.4 * len(candidates))), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes in grid[len(metrics) :]:
        axes.set_visible(False)
    for axes, metric in zip(grid, metrics, strict=False):
        for x in (x for x in result.comparisons if x.metric == metric and x.interval_95 is not None):
            row = len(candidates) - 1 - candidates.index(x.candidate)
            color = COLORS[candidates.index(x.candidate) % len(COLORS)]
            axes.plot(x.per_seed, [row] * len(x.per_seed), "o", color=color, markersize=4, alpha=0.5)
            axes.plot(x.interval_95, [row - 0.25] * 2, color="#1c2430", linewidth=1.5)
            axes.plot(x.difference, row - 0.25, "D", color="#1c2430", markersize=4)
        info = METRICS[metric]
        axes.set_title(f"{info.title} ({'higher' if info.higher_is_better else 'lower'} is better)", fontsize=9)
        axes.axvline(0, color="#1c2430", linewidth=0.8)
        axes.set_yticks(range(len(candidates)), candidates[::-1], fontsize=8)
        axes.set_ylim(-0.7, len(candidates) - 0.4)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}")
        axes.tick_params(labelsize=7, length=2)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    baseline = result.comparisons[0].baseline
    text = f"difference from {baseline}, percentage points; dots: seeds, line: 95 % interval"
    figure.supxlabel(fitted(figure, text), fontsize=8)
    return figure


def _text(result: ComparisonResult) -> str:
    rows = [list(HEAD), *map(_cells, result.comparisons)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", *_legend(result)]) + "\n"


def _markdown(result: ComparisonResult) -> str:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in [list(HEAD), *map(_cells, result.comparisons)]]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(HEAD) + "|", *lines[1:], "", *(f"- {x}" for x in _legend(result))]) + "\n"


def _latex(result: ComparisonResult) -> str:
    """Return a table for the LaTeX package booktabs."""
    head, *rows = (" & ".join(map(latex_text, row)) + r" \\" for row in [list(HEAD), *map(_cells, result.comparisons)])
    notes = (f"% {line}" for line in _legend(result))
    begin = [f"\\begin{{tabular}}{{lll{'r' * (len(HEAD) - 3)}}}", r"\toprule", head, r"\midrule"]
    return "\n".join([*notes, *begin, *rows, r"\bottomrule", r"\end{tabular}", ""])


def _csv(result: ComparisonResult) -> str:
    """Return one line per comparison, rates between 0 and 1, an empty field for what is undefined."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for x in result.comparisons:
        low, high = x.interval_95 or (None, None)
        seeds = " ".join(map(str, x.seeds))
        means = (x.candidate_mean, x.baseline_mean, x.difference, low, high)
        tests = (x.effect_size, x.p, x.p_holm, x.higher_is_better, x.left_out)
        writer.writerow([x.metric, x.candidate, x.baseline, seeds, *means, *tests])
    return buffer.getvalue()


def _json(result: ComparisonResult) -> str:
    return json.dumps(result.to_json(), indent=2) + "\n"


FORMATS: dict[str, Callable[[ComparisonResult], str]] = {
    "text": _text,
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
    "json": _json,
}


def _cells(x: Comparison) -> list[str]:
    difference = "-"
    if x.difference is not None and x.interval_95 is not None:
        difference = f"{_points(x.difference)} ({_points(x.interval_95[0])} to {_points(x.interval_95[1])})"
    return [
        METRICS[x.metric].title,
        x.candidate,
        x.baseline,
        str(len(x.seeds)),
        _rate(x.candidate_mean),
        _rate(x.baseline_mean),
        difference,
        "-" if x.effect_size is None else f"{x.effect_size:+.2f}",
        _p(x.p),
        _p(x.p_holm),
    ]


def _legend(result: ComparisonResult) -> list[str]:
    s = result.settings
    return [
        "Rates in percent; difference: candidate minus baseline, in percentage points. NBT: lower is better.",
        f"{len(s['tasks'])} tasks, {s['episodes per task']} episodes each of at most {s['max_steps']} steps, sampling "
        f"{s['sampling']}, assets {', '.join(s['assets'])}; {result.resamples} resamples, seed {result.seed}.",
        "Effect size: mean / standard deviation of the differences over seeds. p: two-sided sign-flip test over seeds.",
        *result.notes,
    ]


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value + 0.0:+.1f}"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"
