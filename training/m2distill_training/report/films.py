"""Films of a page, and the success matrix whose cells lead to them."""

import base64
import html

from m2distill_training.report.runs import ReportedRun

MOST_FAILURES = 3  # films of one task after one stage; the others are beside the evaluation


def matrix_table(run: ReportedRun, number: int) -> str:
    """Return the success matrix of the page's run `number` as a table; a cell with films links to them."""
    S = run.evaluation["matrix"]
    head = "".join(f"<th>{k}</th>" for k in range(1, len(S) + 1))
    rows = []
    for i, row in enumerate(S, 1):
        cells = []
        for k, value in enumerate(row, 1):
            if value is None:
                cells.append("<td></td>")
                continue
            text = f"{value:.0%}"
            if any(_films(run, task) for task in _tasks(run, i, k)):
                text = (
                    f'<a href="#{_anchor(number, i, k)}" title="films after stage {i}, tasks of stage {k}">{text}</a>'
                )
            shade = "dark" if value > 0.6 else "pale"
            cells.append(f'<td class="cell {shade}" style="--s:{100 * value:.0f}%">{text}</td>')
        rows.append(f"<tr><th>{i}</th>{''.join(cells)}</tr>")
    return (
        f'<figure class="wide"><figcaption>{html.escape(run.label)}</figcaption><table class="matrix">'
        f'<tr><th>after stage</th><th colspan="{len(S)}">success on the tasks of stage</th></tr>'
        f"<tr><th></th>{head}</tr>{''.join(rows)}</table></figure>"
    )


def film_section(run: ReportedRun, number: int) -> str:
    """Return the films of a run, ordered by stage and by the stage that learned the task; empty without any."""
    parts = []
    for i in range(len(run.evaluation["stages"]), 0, -1):  # the final policy first
        for k in range(1, i + 1):
            shown = [film for task in _tasks(run, i, k) for film in _films(run, task)]
            if shown:
                title = f"after stage {i}, tasks of stage {k}"
                parts.append(f'<h4 id="{_anchor(number, i, k)}">{title}</h4><div class="row">{"".join(shown)}</div>')
    return f"<h3>{html.escape(run.label)}</h3>{''.join(parts)}" if parts else ""


def _anchor(number: int, i: int, k: int) -> str:
    return f"films-{number}-{i}-{k}"


def _tasks(run: ReportedRun, i: int, k: int) -> list[dict]:
    """Return the entries after stage i of the tasks that are new in stage k."""
    stages = run.evaluation["stages"]

    def names(stage: int) -> set[tuple]:
        return (
            {(t["instruction"], t.get("suite"), t.get("task")) for t in stages[stage - 1]["tasks"]} if stage else set()
        )

    new = names(k) - names(k - 1)
    return [t for t in stages[i - 1]["tasks"] if (t["instruction"], t.get("suite"), t.get("task")) in new]


def _films(run: ReportedRun, task: dict) -> list[str]:
    """Return the first failures of a task as HTML; its first film if none of them failed."""
    filmed = [e for e in task["runs"] if e["video"] and (run.path / e["video"]).is_file()]
    chosen = [e for e in filmed if not e["success"]][:MOST_FAILURES] or filmed[:1]
    shown = []
    for episode in chosen:
        data = base64.b64encode((run.path / episode["video"]).read_bytes()).decode()
        outcome = "success" if episode["success"] else "failure"
        shown.append(
            f'<figure><video controls muted loop src="data:video/mp4;base64,{data}"></video>'
            f"<figcaption>{html.escape(task['instruction'])}: {outcome} after {episode['steps']} "
            "steps</figcaption></figure>"
        )
    return shown
