"""Writes the section on the plan in docs/results.md from docs/results/plan, and copies finished runs there.

    python scripts/results.py                 # the section
    python scripts/results.py --take FOLDER   # first the runs that have ended in this folder of `m2distill study`

docs/results/plan is a folder of a study without networks, films and demonstrations, so that
`m2distill compare docs/results/plan` and `m2distill report docs/results/plan/runs/*` read it. Tests compare the
committed section with what this writes now.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m2distill_training.evaluation.compare import compare
from m2distill_training.experiments.study_plan import Plan, read_plan
from m2distill_training.experiments.study_results import evaluated_runs, over_seeds, table_row
from m2distill_training.report.comparison import render

ROOT = Path(__file__).resolve().parents[1]
PLAN, FIGURES, PAGE = (ROOT / path for path in ("docs/results/plan.yaml", "docs/results/plan", "docs/results.md"))
BEGIN, END = "<!-- written by scripts/results.py -->", "<!-- end -->"
METRICS = ("fwt", "nbt", "auc")
NOTE = (
    "Means over seeds in percent, with 95 % t intervals over seeds for two or more. Starts are those for "
    "choices. The metrics are defined in [method](method.md#terms-of-the-paper-and-names-in-the-code)."
)
ENVIRONMENT = ("started", "source", "python", "cpu", "cores", "threads")
MEASURED = ("stage", "step", "steps_per_s")


def take(study: Path) -> list[str]:
    """Copy the figures of the runs that have ended; return the names of the new ones."""
    _copy_json(study / "study.json", FIGURES / "study.json")
    taken = []
    for _, run in evaluated_runs(study):
        copy = FIGURES / "runs" / run.name
        if (copy / "evaluation.json").exists():
            continue
        _copy_json(run / "config.json", copy / "config.json")
        _copy_json(run / "data.json", copy / "data.json", lambda record: record | {"path": Path(record["path"]).name})
        _copy_json(
            run / "environment.json",
            copy / "environment.json",
            lambda record: {key: record[key] for key in ENVIRONMENT} | {"packages": {}, "command": [], "gpus": []},
        )
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        last = {line["stage"]: {key: line[key] for key in MEASURED} | {"schema": line["schema"]} for line in lines}
        (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in last.values()))
        _copy_json(
            run / "evaluation.json", copy / "evaluation.json", without_films
        )  # the last one: it makes the copy whole
        taken.append(run.name)
    return taken


def without_films(value: Any) -> Any:
    """Return JSON without the paths of films, which are not copied."""
    if isinstance(value, dict):
        return {key: None if key == "video" else without_films(x) for key, x in value.items()}
    return [without_films(x) for x in value] if isinstance(value, list) else value


def _copy_json(source: Path, target: Path, change=lambda value: value) -> None:
    """Write JSON in few bytes; `change` is applied to every record, or to the whole without records."""
    value = json.loads(source.read_text())
    if isinstance(value, dict) and isinstance(value.get("records"), list):
        value |= {"records": [change(record) for record in value["records"]]}
    else:
        value = change(value)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(value, separators=(",", ":")) + "\n")


def section() -> str:
    """Return the text between the markers."""
    plan, runs = read_plan(PLAN), finished_runs()
    total = len(plan.strategies) * len(plan.seeds) * len(plan.suites)
    ended = sum(map(len, runs.values()))
    lines = [f"{ended} of {total} runs have ended."]
    if not ended:
        return lines[0]
    lines[0] += f" {NOTE}"
    lines += [
        "",
        "| strategy | seeds | FWT | NBT | AUC | gradient steps, all later stages |",
        "|---|---|---|---|---|---|",
    ]
    for variant in plan.strategies:
        of_variant = runs.get(variant.name, {})
        if of_variant:
            values = [over_seeds([run["metrics"][name] for run in of_variant.values()]) for name in METRICS]
            budget = variant.budget or plan.budgets()[1]
            lines.append(table_row(variant.name, ", ".join(map(str, sorted(of_variant))), *values, f"{budget} a task"))
    return "\n".join([*lines, *_comparisons(plan, runs)])


def finished_runs() -> dict[str, dict[int, dict]]:
    """Return strategy -> seed -> evaluation of every run that has ended."""
    runs: dict[str, dict[int, dict]] = defaultdict(dict)
    for variant, path in evaluated_runs(FIGURES):
        runs[variant][int(path.name.rpartition("-")[2])] = json.loads((path / "evaluation.json").read_text())
    return runs


def _comparisons(plan: Plan, runs: dict[str, dict[int, dict]]) -> Iterator[str]:
    """Yield the lines of the planned comparisons whose runs have all ended; a part of them decides nothing."""
    whole = {name for name, of_variant in runs.items() if set(of_variant) == set(plan.seeds)}
    waiting = 0
    for each in plan.comparisons:
        if {each.baseline, each.candidate} <= whole:
            yield ""
            yield render(
                compare([FIGURES], baseline=each.baseline, candidates=[each.candidate], metrics=each.metrics),
                "markdown",
            ).rstrip()
        else:
            waiting += 1
    if waiting:
        yield ""
        yield (
            f"{waiting} of {len(plan.comparisons)} planned comparisons wait for runs. A comparison is made when all "
            "seeds of both strategies have ended, because looking at a part of them and stopping would favour chance."
        )


def page(text: str) -> str:
    """Return docs/results.md with the present section."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{section()}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--take", type=Path, help="folder of the study whose finished runs are copied first")
    options = parser.parse_args()
    if options.take:
        print("taken:", ", ".join(take(options.take)) or "none")
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
