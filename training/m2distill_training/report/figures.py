"""Figures of the report, drawn by matplotlib without a display."""

import textwrap
from typing import Any, Literal, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from m2distill_training.evaluation.metrics import RATE, t_interval
from m2distill_training.report.runs import ReportedRun, TaskKey, same_method, task_key, task_titles
from m2distill_training.report.styles import COLORS, RunStyle, run_styles

SUCCESS = LinearSegmentedColormap.from_list("success", ["#f4f7f5", "#8fcbb0", "#1d6b4c"])
NOT_A_TERM = {"stage", "step", "loss", "lr", "grad_norm", "steps_per_s"}
UNITS = {"bc": "nats", "policy": "nats"}  # of loss terms; the others are shares of a mean square, or have none
CHARACTER_IN = 0.062  # width of a character of 8 points, generously
METRICS = {"fwt": "FWT: success when learned", "nbt": "NBT: success lost later", "auc": "AUC: success over all stages"}


def comparison(runs: list[ReportedRun]) -> Figure:
    """Draw bars of the three metrics, one per run, with 95 % intervals."""
    figure = Figure(figsize=(10, 0.8 + 0.34 * len(runs)), layout="constrained")
    rows = np.arange(len(runs))[::-1]
    for axes, (name, title) in zip(figure.subplots(1, 3, sharey=True), METRICS.items(), strict=True):
        for row, run, style in zip(rows, runs, run_styles(runs), strict=True):
            value, interval = run.evaluation["metrics"][name], run.evaluation["intervals_95"][name]
            if value is not None:
                axes.barh(row, value, color=style.color, height=0.62)
                axes.plot(interval, [row, row], color="#1c2430", linewidth=1.5)
        axes.set_title(title, fontsize=9)
        axes.set_yticks(rows, [textwrap.fill(run.label, 36) for run in runs], fontsize=8)
        axes.axvline(0, color="#1c2430", linewidth=0.8)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if name != "nbt":  # can be negative
            axes.set_xlim(0, 1)
        axes.set_xlabel("success, %" if name != "nbt" else "success lost, %", fontsize=8)
        _plain(axes, "x")
    return figure


def matrix(run: ReportedRun) -> Figure:
    """Draw a heat map of S[i, k], the success on the tasks of stage k after stage i."""
    S = np.array(run.evaluation["matrix"], dtype=float)  # None becomes NaN
    K = len(S)
    figure = Figure(figsize=(max(2.6, 1.0 + 0.46 * K), 1.0 + 0.4 * K), layout="constrained")
    axes = figure.subplots()
    axes.imshow(S, cmap=SUCCESS, vmin=0, vmax=1, aspect="auto")
    for i, k in zip(*np.nonzero(np.isfinite(S)), strict=True):
        axes.text(
            k, i, f"{S[i, k]:.0%}", ha="center", va="center", fontsize=8, color="white" if S[i, k] > 0.6 else "#1c2430"
        )
    numbers = [str(k) for k in range(1, K + 1)]
    axes.set_xticks(range(K), numbers, fontsize=8)
    axes.set_yticks(range(K), numbers, fontsize=8)
    axes.set_xlabel("tasks of stage", fontsize=8)
    axes.set_ylabel("after stage", fontsize=8)
    axes.set_xticks(np.arange(K + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(K + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(fitted(figure, run.label, besides_in=0.7), fontsize=8)
    return figure


def forgetting(runs: list[ReportedRun]) -> Figure:
    """Draw the success on each task after every stage since it was learned, with 95 % Wilson intervals."""
    titles = task_titles(runs)
    figure, panels = _panels(len(titles), width=3.2, height=2.2)
    stages = max(len(run.evaluation["stages"]) for run in runs)
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        _draw_means(axes, runs, key)
        for n, (run, style) in enumerate(zip(runs, run_styles(runs), strict=True)):
            shift = (n - (len(runs) - 1) / 2) * min(0.08, 0.5 / len(runs))  # so that intervals do not overlap
            points = [
                (i + shift, t["success_rate"], *t["wilson_95"])
                for i, stage in enumerate(run.evaluation["stages"], 1)
                for t in stage["tasks"]
                if task_key(t) == key
            ]
            if points:
                x, y, low, high = np.array(points).T
                axes.errorbar(
                    x,
                    y,
                    np.maximum(0, [y - low, high - y]),
                    color=style.color,
                    linestyle=style.line,
                    marker=style.marker,
                    markersize=4,
                    linewidth=1.2,
                    elinewidth=0.8,
                    capsize=2,
                    label=run.label,
                )
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlim(0.6, stages + 0.4)
        axes.set_xticks(range(1, stages + 1))
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
        axes.set_title(textwrap.fill(title, 44), fontsize=8)
        _plain(axes, "y")
    figure.supxlabel("after stage", fontsize=8)
    figure.supylabel("success, %", fontsize=8)
    _legend(figure, panels)
    return figure


def _draw_means(axes: Axes, runs: list[ReportedRun], key: TaskKey) -> None:
    """Draw the mean of each method with several seeds, and a band: its 95 % t interval, cut off at 0 and 100 %."""
    styles = dict(zip((run.path for run in runs), run_styles(runs), strict=True))
    for group in same_method(runs):
        seeds = {run.config["seed"]: run for run in group}  # runs of one seed count as one
        if len(seeds) < 2:
            continue
        rates: dict[int, list[float]] = {}
        for run in seeds.values():
            for i, stage in enumerate(run.evaluation["stages"], 1):
                own = [t["success_rate"] for t in stage["tasks"] if task_key(t) == key]
                if own:
                    rates.setdefault(i, []).append(float(np.mean(own)))
        x = [i for i, values in rates.items() if len(values) > 1]
        if not x:
            continue
        bands = np.array([t_interval(rates[i], RATE) for i in x])
        color = styles[group[0].path].color
        label = f"{group[0].strategy}: mean of {len(seeds)} seeds"
        axes.plot(x, [np.mean(rates[i]) for i in x], color=color, linewidth=2.6, alpha=0.8, label=label)
        axes.fill_between(x, bands[:, 0], bands[:, 1], color=color, alpha=0.12, linewidth=0)


def _is_term(name: str) -> bool:
    return name not in NOT_A_TERM and not name.startswith(("grad_norm_", "multiplier_"))


def losses(run: ReportedRun) -> Figure | None:
    """Draw every loss term over gradient steps, one stage after the other; None for a run without a log."""
    names = list(dict.fromkeys(name for line in run.metrics for name in line if _is_term(name)))
    if not names:
        return None
    last = {line["stage"]: line["step"] for line in run.metrics}
    starts = dict(zip(last, np.cumsum([0, *last.values()])[:-1].tolist(), strict=True))
    figure, panels = _panels(len(names), width=2.3, height=1.9, columns=5)
    for axes, name in zip(panels, names, strict=True):
        for start in list(starts.values())[1:]:
            axes.axvline(start, color="#b8c1cc", linewidth=0.8, linestyle=":")
        for stage, start in starts.items():
            lines = [line for line in run.metrics if line["stage"] == stage and name in line]
            axes.plot(
                [start + line["step"] for line in lines],
                [line[name] for line in lines],
                linewidth=1,
                color=COLORS[(stage - 1) % len(COLORS)],
            )
        axes.set_xlim(0, starts[max(starts)] + last[max(last)])
        axes.set_title(f"{name}, {UNITS[name]}" if name in UNITS else name, fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:.4g}")  # no power of ten above the axis, where the title is
        _plain(axes, "y")
    figure.supxlabel(fitted(figure, "gradient steps; a dotted line begins a stage"), fontsize=8)
    figure.supylabel("mean over the batch", fontsize=8)
    return figure


def drift(runs: list[ReportedRun]) -> Figure | None:
    """Draw the drift of old tasks' latents over stages since the task was learned; None if no run measured it."""
    measured = [(run, style) for run, style in zip(runs, run_styles(runs), strict=True) if run.drift]
    if not measured:
        return None
    modalities = list(dict.fromkeys(name for run, _ in measured for entry in run.drift for name in entry["relative"]))
    figure, panels = _panels(len(modalities) + 1, width=2.3, height=1.9, columns=6)
    for axes, name in zip(panels, [*modalities, None], strict=True):
        for run, style in measured:
            by_age: dict[int, list[float]] = {}
            for entry in run.drift:
                if name is not None and name not in entry["relative"]:  # a run with other cameras
                    continue
                value = entry["policy_kl"] if name is None else entry["relative"][name]
                by_age.setdefault(entry["stage"] - entry["learned_in_stage"], []).append(value)
            ages = sorted(by_age)
            axes.plot(ages, [np.mean(by_age[age]) for age in ages], **_line(style), label=run.label)
            axes.plot(
                [age for age in ages for _ in by_age[age]],
                [x for age in ages for x in by_age[age]],
                style.marker,
                color=style.color,
                markersize=3,
                alpha=0.6,
            )
        axes.set_title("policy" if name is None else name, fontsize=9)
        axes.set_ylabel("KL, nats" if name is None else "share of mean square", fontsize=7)
        axes.set_ylim(bottom=0)
        cast(MaxNLocator, axes.xaxis.get_major_locator()).set_params(integer=True)
        _plain(axes, "y")
    figure.supxlabel("stages since the task was learned", fontsize=8)
    _legend(figure, panels)
    return figure


def _line(style: RunStyle) -> dict[str, Any]:
    return {"color": style.color, "linestyle": style.line, "linewidth": 1.2}


def _panels(n: int, width: float, height: float, columns: int = 4) -> tuple[Figure, list[Axes]]:
    """Return a figure with n axes in rows; width and height of one are in inches."""
    columns = min(n, columns)
    rows = -(-n // columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[n:]:
        axes.set_visible(False)
    return figure, list(grid[:n])


def _legend(figure: Figure, panels: list[Axes]) -> None:
    """Draw one legend above all panels, with as many columns as the figure is wide, and make room for it."""
    handles = {
        fitted(figure, label, besides_in=0.6): handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    longest = max(len(line) for label in handles for line in label.split("\n"))
    columns = max(1, min(4, int(figure.get_figwidth() / (0.6 + CHARACTER_IN * longest))))
    lines = sum(1 + label.count("\n") for label in handles)
    figure.set_figheight(figure.get_figheight() + 0.17 * -(-lines // columns))
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=columns, fontsize=8, frameon=False
    )


def fitted(figure: Figure, text: str, besides_in: float = 0.0) -> str:
    """Return a text of 8 points in lines that fit the width of a figure, less `besides_in`."""
    return textwrap.fill(text, max(10, int((figure.get_figwidth() - besides_in) / CHARACTER_IN)))


def _plain(axes: Axes, grid: Literal["x", "y"]) -> None:
    axes.tick_params(labelsize=7, length=2)
    axes.grid(axis=grid, alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
