"""Report page: one self-contained HTML file with the results of runs.

Its figures (PNG, SVG, PDF) and tables (CSV, LaTeX) are beside it.
"""

import base64
import html
import io
import json
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from m2distill_training.evaluation.metrics import RANGES, t_interval
from m2distill_training.report import figures
from m2distill_training.report.films import film_section, matrix_table
from m2distill_training.report.runs import ReportedRun, load_runs, same_method, task_titles
from m2distill_training.report.tables import result_tables
from m2distill_training.runs.records import write_atomic

STYLE = """
:root{color-scheme:light dark;--fg:#1c2430;--dim:#5b6675;--line:#d8dee6;--bg:#fff;--pale:#f4f7f5;--full:#1d6b4c}
@media(prefers-color-scheme:dark){:root{--fg:#e6e9ee;--dim:#a3adba;--line:#3a4350;--bg:#14181e;--pale:#26302c}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:72rem;margin:2rem auto;
padding:0 1rem;overflow-wrap:break-word}
h1{font-size:1.6rem;margin-bottom:0}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.2rem 0 .4rem}h4{font-size:.9rem;margin:.8rem 0 .3rem}.note{color:var(--dim);max-width:52rem}
.wide{overflow-x:auto;max-width:100%}table{border-collapse:collapse;margin:.6rem 0}
th,td{padding:.35rem .8rem;text-align:left;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--dim)}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td.n{white-space:nowrap}
.matrix td,.matrix th{text-align:center;padding:.3rem .5rem}.matrix th[colspan]{font-weight:400}
td.cell{background:color-mix(in srgb,var(--full) var(--s),var(--pale));border:2px solid var(--bg)}
td.cell,td.cell a{color:var(--fg)}td.dark,td.dark a{color:#fff}
.row{display:flex;flex-wrap:wrap;gap:1.2rem;align-items:flex-end}figure{margin:0}
figcaption{color:var(--dim);font-size:.85rem}:target{outline:2px solid var(--dim)}
video{width:30rem;max-width:100%;background:#000}img{max-width:100%;height:auto;background:#fff}pre{overflow-x:auto}
@media(prefers-color-scheme:dark){.figure img{filter:invert(.91) hue-rotate(180deg)}}
@media(max-width:40rem){.figure{overflow-x:auto}.figure img{max-width:46rem}th,td{padding:.35rem .5rem}}
"""
MAIN_PACKAGES = ("torch", "numpy", "mujoco", "robosuite", "transformers")
PNG_DPI = 160
NUMBER = re.compile(r"[-+]?\d[\d.]*%?( of \d+)?( \(.*\)|, \d+ of an earlier task)?$")


def write_report(out: Path, runs: list[Path], title: str = "m2distill report", notes: str = "") -> None:
    """Write a page that compares evaluated runs, its figures and its tables.

    Args:
        out: the page; its figures and tables are in the folders `<out without suffix>_figures` and `_tables`.
        runs: run folders with an evaluation.json.
        title: heading of the page.
        notes: plain text below the heading.

    Raises:
        RunError: a run has not been evaluated or is damaged, or a file cannot be written.
    """
    with rc_context({"text.parse_math": False}):  # two dollar signs in an instruction are no formula
        _write(out, load_runs(runs), title, notes)


def _write(out: Path, loaded: list[ReportedRun], title: str, notes: str) -> None:
    gallery = _Gallery()
    body = [
        f"<h1>{html.escape(title)}</h1>",
        _note(notes) if notes else "",
        *_result(loaded, gallery),
        *_success(loaded, gallery),
        *_tasks(loaded),
        *_losses(loaded, gallery),
        *_drift(loaded, gallery),
        "<h2>Settings</h2>",
        *(_settings(run) for run in loaded),
    ]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title>"
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>{"".join(body)}</body></html>\n'
    )
    for name, files in gallery.figures.items():
        for suffix, content in files.items():
            write_atomic(out.with_name(f"{out.stem}_figures") / f"{name}.{suffix}", content)
    for name, table in result_tables(loaded).items():
        write_atomic(out.with_name(f"{out.stem}_tables") / name, table.encode(errors="replace"))
    write_atomic(out, page.encode(errors="replace"))


@dataclass
class _Gallery:
    """Figures of a page, by file name."""

    figures: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def add(self, name: str, figure: Figure) -> dict[str, bytes]:
        """Add a figure beside the page; return its content by suffix."""
        return self.figures.setdefault(re.sub(r"[^\w.-]+", "_", name).strip("_"), _files(figure))

    def show(self, name: str, caption: str, figure: Figure) -> str:
        """Return the figure as HTML; `caption` is its text alternative."""
        data = base64.b64encode(self.add(name, figure)["svg"]).decode()
        image = f'<img alt="{html.escape(caption)}" src="data:image/svg+xml;base64,{data}">'
        return f'<div class="figure">{image}</div>'


def _files(figure: Figure) -> dict[str, bytes]:
    """Return the figure as png, svg and pdf."""
    svg, pdf, png = io.BytesIO(), io.BytesIO(), io.BytesIO()
    FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    figure.set_layout_engine("none")  # it is laid out now; once for all formats
    FigureCanvasPdf(figure).print_pdf(pdf, metadata={"CreationDate": None})
    figure.dpi = PNG_DPI
    FigureCanvasAgg(figure).print_png(png)
    return {"png": png.getvalue(), "svg": svg.getvalue(), "pdf": pdf.getvalue()}


def _episodes(evaluation: dict) -> str:
    earlier = evaluation.get("episodes_earlier")
    return f"{evaluation['episodes_per_task']}" + (f", {earlier} of an earlier task" if earlier else "")


def _result(runs: list[ReportedRun], gallery: _Gallery) -> list[str]:
    rows = []
    for run in runs:
        m, intervals = run.evaluation["metrics"], run.evaluation["intervals_95"]
        rows.append(
            [
                run.label,
                *(_measured(m[name], intervals[name]) for name in figures.METRICS),
                run.config["seed"],
                _episodes(run.evaluation),
            ]
        )
    parts = [
        "<h2>Result</h2>",
        _table(["run", "FWT", "NBT", "AUC", "seed", "episodes per task and stage"], rows),
        gallery.show("comparison", "Bars of FWT, NBT and AUC of every run", figures.comparison(runs)),
        _note(
            "FWT: success on a task when it is learned (higher is better). NBT: success lost later (lower is "
            "better). AUC: success averaged over all later stages. Final-success variant. The 95 % intervals "
            "cover the number of episodes alone; training with another seed adds variation."
        ),
    ]
    if any(run.evaluation.get("starts") == "choice" for run in runs):
        parts.append(
            _note("Some episodes began from the starts for choices. Report success on those of --starts report alone.")
        )
    if seeds := _over_seeds(runs):
        parts += [
            "<h3>Mean over seeds</h3>",
            _table(["runs", "seeds", "FWT", "NBT", "AUC"], seeds),
            _note(
                "With the 95 % t interval over seeds, cut at the range of the metric. m2distill compare tests "
                "differences between strategies."
            ),
        ]
    if any("libero_metrics" in run.evaluation for run in runs):
        parts += [
            "<h3>LIBERO's variant</h3>",
            _table(
                ["run", "FWT", "NBT", "AUC"],
                [
                    [run.label, *(_percent(run.evaluation["libero_metrics"][name]) for name in figures.METRICS)]
                    for run in runs
                    if "libero_metrics" in run.evaluation
                ],
            ),
            _note(
                "FWT averages the success while a task is learned, held at its best value once reached; NBT "
                "counts the last task as 0. Not comparable with the variant above."
            ),
        ]
    return parts


def _over_seeds(runs: list[ReportedRun]) -> list[list]:
    rows = []
    for group in same_method(runs):
        seeds = list(dict.fromkeys(run.config["seed"] for run in group))
        if len(seeds) > 1:
            of_seeds = [[run.evaluation["metrics"] for run in group if run.config["seed"] == seed] for seed in seeds]
            means = (_mean_over_seeds(name, [[x[name] for x in same] for same in of_seeds]) for name in figures.METRICS)
            rows.append([", ".join(run.label for run in group), len(seeds), *means])
    return rows


def _mean_over_seeds(metric: str, values: list[list[float | None]]) -> str:
    """Return the mean of a metric with its t interval, from the values of every seed: runs of one seed count as one."""
    known = [[x for x in same if x is not None] for same in values]
    if not all(known):
        return "-"
    of_seeds = [statistics.mean(same) for same in known]
    return _measured(statistics.mean(of_seeds), t_interval(of_seeds, RANGES[metric]))


def _success(runs: list[ReportedRun], gallery: _Gallery) -> list[str]:
    for run in runs:
        gallery.add(f"success_{run.label}", figures.matrix(run))
    maps = [matrix_table(run, number) for number, run in enumerate(runs)]
    return [
        "<h2>Success after every stage</h2>",
        '<div class="row">',
        *maps,
        "</div>",
        _note(
            "Row: the stage after which success was measured. Column: the stage that learned the tasks. Episodes "
            "start from initial states that no demonstration used. A linked cell leads to films, of failures if "
            "there are any."
        ),
        "<h2>Forgetting, task by task</h2>",
        gallery.show("forgetting", "Success on every task after every stage", figures.forgetting(runs)),
        _note(
            "Bars: 95 % Wilson intervals. Band: 95 % t interval over seeds, if a method has several. Colour: method; "
            "line and marker: seed."
        ),
    ]


def _tasks(runs: list[ReportedRun]) -> list[str]:
    last = [run.tasks() for run in runs]
    rows = [
        [title, *(_successes(tasks[key]) if key in tasks else "-" for tasks in last)]
        for key, title in task_titles(runs).items()
        if any(key in tasks for tasks in last)
    ]
    videos = [film_section(run, number) for number, run in enumerate(runs)]
    return [
        "<h2>Each task after the last stage</h2>",
        _table(["instruction", *(run.label for run in runs)], rows),
        _note("Successes of episodes, with the 95 % Wilson interval."),
        "<h2>Videos</h2>",
        "".join(videos) or _note("None recorded."),
    ]


def _successes(task: dict) -> str:
    low, high = task["wilson_95"]
    return f"{task['successes']} of {task['episodes']} ({low:.0%} to {high:.0%})"


def _losses(runs: list[ReportedRun], gallery: _Gallery) -> list[str]:
    parts = ["<h2>Losses</h2>"]
    for run in runs:
        if (figure := figures.losses(run)) is not None:
            parts += [
                f"<h3>{html.escape(run.label)}</h3>",
                gallery.show(f"losses_{run.label}", f"Loss terms of {run.label}", figure),
            ]
    return parts


def _drift(runs: list[ReportedRun], gallery: _Gallery) -> list[str]:
    figure = figures.drift(runs)
    if figure is None:
        return [
            "<h2>Latent drift</h2>",
            _note(
                "Not measured, or no task had a later stage. m2distill report --drift "
                "measures it from the checkpoints and the demonstrations."
            ),
        ]
    return [
        "<h2>Latent drift</h2>",
        gallery.show("drift", "Latent drift of old tasks by modality", figure),
        _note(
            "How far the latents of an old task have moved since it was learned: squared distance to those of "
            "the checkpoint that learned it, over their own mean square; for the policy, KL(then || now). "
            "Points: single tasks; lines: their mean. Measured on demonstrations outside the replay memory "
            "if there are any."
        ),
    ]


def _settings(run: ReportedRun) -> str:
    tasks = [[d["instruction"], d["demos"], Path(d["path"]).name, d["key"]] for d in run.data]
    stages = [[i, stage["checkpoint_id"][:12]] for i, stage in enumerate(run.evaluation["stages"], 1)]
    trained = [
        _note(f"Trained{f' in {starts} starts' if starts > 1 else ''} with {where}.")
        for where, starts in Counter(map(_environment, run.environments)).items()
    ]
    return (
        f"<h3>{html.escape(run.label)}</h3>{_table(['task', 'demos', 'file', 'content key'], tasks)}"
        f"{_table(['stage', 'checkpoint'], stages)}"
        f"{''.join(trained)}"
        f"<details><summary>configuration</summary><pre>{html.escape(json.dumps(run.config, indent=1))}</pre>"
        "</details><details><summary>environment</summary>"
        f"<pre>{html.escape(json.dumps(run.environments, indent=1))}</pre></details>"
    )


def _environment(start: dict) -> str:
    packages = ", ".join(f"{name} {start['packages'][name]}" for name in MAIN_PACKAGES if name in start["packages"])
    machine = ", ".join([start["cpu"], f"{start['cores']} cores", f"{start['threads']} threads", *start["gpus"]])
    return f"Python {start['python']}, {packages}, on {machine}; source {start['source'] or 'unknown'}"


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def _table(head: list[str], rows: list[list]) -> str:
    """Return a table as HTML; a column of numbers is aligned to the right, with its heading."""
    is_number = [all(_is_number(row[i]) for row in rows) for i in range(len(head))]

    def line(tag: str, values: list) -> str:
        cells = zip(values, is_number, strict=True)
        return "".join(f"<{tag}{' class=n' if n else ''}>{html.escape(str(value))}</{tag}>" for value, n in cells)

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{line("th", head)}</tr>{body}</table></div>'


def _is_number(value: object) -> bool:
    """Return whether a cell is a number, perhaps with its unit, its total or its interval, or stands for one."""
    return value == "-" or bool(NUMBER.match(str(value)))


def _measured(value: float | None, interval: Sequence[float] | None) -> str:
    return "-" if value is None or interval is None else f"{value:.0%} ({interval[0]:.0%} to {interval[1]:.0%})"


def _percent(value: float) -> str:
    return f"{value:.0%}"
