"""One HTML page that shows what a run has learned and kept. Everything is inside the file: it can be mailed."""

import base64
import html
import io
import json
from dataclasses import dataclass
from pathlib import Path

from m2distill_training.run import RunError, RunFolder, write_atomic

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2430;max-width:68rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:0}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #d8dee6}
h3{font-size:1rem;margin:1.2rem 0 .4rem}.note{color:#5b6675}
table{border-collapse:collapse;margin:.6rem 0}
th,td{padding:.35rem .8rem;text-align:left;border-bottom:1px solid #e6eaef}
th{font-weight:600;color:#5b6675}td.n{text-align:right;font-variant-numeric:tabular-nums}
.matrix td{text-align:center;min-width:4.5rem;border:2px solid #fff;font-variant-numeric:tabular-nums}
.row{display:flex;flex-wrap:wrap;gap:1.2rem}figure{margin:0}figcaption{color:#5b6675;font-size:.85rem}
video{width:30rem;max-width:100%;background:#000}svg{max-width:100%;height:auto}
"""


@dataclass(frozen=True)
class _Run:
    path: Path
    label: str
    config: dict
    data: list[dict]
    evaluation: dict
    metrics: list[dict]


def write_report(out: Path, runs: list[Path], title: str = "m2distill report", notes: str = "") -> None:
    """Runs that were evaluated (evaluation.json), side by side, as one page at `out`. `notes` is plain text on top."""
    loaded = [_load(path) for path in runs]
    sections = [f"<h1>{html.escape(title)}</h1>", f'<p class="note">{html.escape(notes)}</p>' if notes else "",
                "<h2>Result</h2>", _summary_table(loaded)]
    sections += ["<h2>Success after every step</h2>", '<div class="row">', *(_matrix(run) for run in loaded), "</div>",
                 '<p class="note">Row: after which step. Column: which task. Episodes start from initial states that '
                 "no demonstration used.</p>",
                 "<h2>Each task under the last checkpoint</h2>", _task_table(loaded),
                 "<h2>Videos</h2>", *(_videos(run) for run in loaded),
                 "<h2>Losses</h2>", *(_curves(run) for run in loaded),
                 "<h2>Settings</h2>", *(_settings(run) for run in loaded)]
    page = (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f"<style>{STYLE}</style></head><body>{''.join(sections)}</body></html>\n")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, page.encode())


def _load(path: Path) -> _Run:
    if not (path / "evaluation.json").is_file():
        raise RunError(f"{path} has no evaluation.json; run: m2distill evaluate {path}")
    config = json.loads((path / "config.json").read_text())
    strategy = config["strategy"]
    label = strategy if path.name == strategy else f"{strategy} ({path.name})"
    return _Run(path, label, config, json.loads((path / "data.json").read_text()),
                json.loads((path / "evaluation.json").read_text()), RunFolder(path).metrics())


def _summary_table(runs: list[_Run]) -> str:
    rows = []
    for run in runs:
        m = run.evaluation["metrics"]
        rows.append([run.label, _percent(m["fwt"]), _percent(m["nbt"]), _percent(m["auc"]), run.config["seed"],
                     run.evaluation["episodes_per_task"]])
    return (_table(["run", "FWT", "NBT", "AUC", "seed", "episodes per task"], rows)
            + '<p class="note">FWT: success on a task when it is learned (higher is better). NBT: success lost later '
              "(lower is better). AUC: success averaged over all later steps. Final-success variant.</p>")


def _matrix(run: _Run) -> str:
    matrix = run.evaluation["matrix"]
    head = "".join(f"<th>task {k + 1}</th>" for k in range(len(matrix)))
    rows = "".join(f"<tr><th>step {i + 1}</th>{''.join(_cell(x) for x in row)}</tr>" for i, row in enumerate(matrix))
    return (f'<figure><h3>{html.escape(run.label)}</h3><table class="matrix"><tr><th></th>{head}</tr>{rows}</table>'
            "</figure>")


def _cell(rate: float | None) -> str:
    if rate is None:
        return "<td></td>"
    lightness = 94 - 52 * rate
    return (f'<td style="background:hsl(158 45% {lightness:.0f}%);color:{"#fff" if lightness < 60 else "#1c2430"}">'
            f"{rate:.0%}</td>")


def _task_table(runs: list[_Run]) -> str:
    rows = []
    for run in runs:
        for task in run.evaluation["steps"][-1]["tasks"]:
            low, high = task["wilson_95"]
            rows.append([run.label, task["instruction"], f"{task['successes']} of {task['episodes']}",
                         f"{low:.0%} to {high:.0%}"])
    return _table(["run", "instruction", "successes", "95 % Wilson interval"], rows)


def _videos(run: _Run) -> str:
    figures = []
    for task in run.evaluation["steps"][-1]["tasks"]:
        for episode in task["runs"]:
            if episode["video"] and (run.path / episode["video"]).is_file():
                data = base64.b64encode((run.path / episode["video"]).read_bytes()).decode()
                outcome = "success" if episode["success"] else "failure"
                figures.append(f'<figure><video controls muted loop src="data:video/mp4;base64,{data}"></video>'
                               f"<figcaption>{html.escape(task['instruction'])}: {outcome} after {episode['steps']} "
                               "steps</figcaption></figure>")
    body = "".join(figures) or '<p class="note">none recorded</p>'
    return f'<h3>{html.escape(run.label)}</h3><div class="row">{body}</div>'


def _curves(run: _Run) -> str:
    """Every loss term over gradient steps, the task steps one after the other, as one inline SVG."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    names = [name for name in ("bc", "image", "text", "extra", "policy") if any(name in line for line in run.metrics)]
    if not names:
        return ""
    figure = Figure(figsize=(2.6 * len(names), 2.3), layout="constrained")
    ends = {k: max(line["step"] for line in run.metrics if line["task_step"] == k)
            for k in {line["task_step"] for line in run.metrics}}
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        start = 0
        for k in sorted(ends):
            lines = [line for line in run.metrics if line["task_step"] == k and name in line]
            axes.plot([start + line["step"] for line in lines], [line[name] for line in lines], linewidth=1,
                      label=f"step {k + 1}")
            start += ends[k]
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
    axes.legend(fontsize=7)
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue()
    return f"<h3>{html.escape(run.label)}</h3>{svg[svg.index('<svg'):]}"


def _settings(run: _Run) -> str:
    rows = [[d["instruction"], d["demos"], Path(d["path"]).name] for d in run.data]
    config = html.escape(json.dumps(run.config, indent=1))
    ids = ", ".join(step["checkpoint_id"][:12] for step in run.evaluation["steps"])
    return (f"<h3>{html.escape(run.label)}</h3>{_table(['task', 'demos', 'file'], rows)}"
            f'<p class="note">checkpoints {ids}</p>'
            f"<details><summary>configuration</summary><pre>{config}</pre></details>")


def _table(head: list[str], rows: list[list]) -> str:
    def cell(value: object) -> str:
        numeric = isinstance(value, (int, float)) or str(value)[:1].isdigit() or value == "-"
        return f'<td class="n">{html.escape(str(value))}</td>' if numeric else f"<td>{html.escape(str(value))}</td>"

    return (f"<table><tr>{''.join(f'<th>{html.escape(h)}</th>' for h in head)}</tr>"
            + "".join(f"<tr>{''.join(cell(value) for value in row)}</tr>" for row in rows) + "</table>")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
