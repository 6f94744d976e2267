"""Writes the sections on plans in docs/results.md from docs/results, and copies finished runs there.

    python scripts/results.py                      # the sections
    python scripts/results.py --take NAME FOLDER   # first the runs of docs/results/NAME.yaml that have ended in this
                                                   # folder of `m2distill study`

docs/results/NAME is a folder of a study without networks, films and demonstrations, so that
`m2distill compare docs/results/NAME` and `m2distill report docs/results/NAME/runs/*` read it. The section of a plan is
between two comments with its name. Its figure, from two seeds on, is docs/images/results_NAME.svg; a plan of several
suites has a part and a figure, results_NAME_SUITE.svg, for each. Tests compare the committed sections with what this
writes now.
"""

import argparse
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG

from m2distill_training.evaluation.compare import compare
from m2distill_training.evaluation.metrics import RANGES
from m2distill_training.experiments.study_plan import Plan, SuitePlan, read_plan
from m2distill_training.experiments.study_results import evaluated_runs, over_seeds, table_row
from m2distill_training.report.comparison import render
from m2distill_training.report.figures import forgetting
from m2distill_training.report.runs import load_runs

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE, IMAGES = (ROOT / path for path in ("docs/results", "docs/results.md", "docs/images"))
SECTION = re.compile(r"<!-- (\w+): written by scripts/results.py -->\n.*?<!-- end of \1 -->", re.DOTALL)
NOTE = (
    "Means over seeds in percent, with 95 % t intervals over seeds for two or more, cut at the range of the metric. "
    "Starts are those {starts}. "
    "Minutes also depend on what else ran. "
    "The metrics are defined in [method](method.md#terms-of-the-paper-and-names-in-the-code)."
)
COST = (
    "Training of the later stages took {hours:.1f} core-hours, about {energy:.2f} kWh at an assumed {watts} W per busy "
    "core. Shared first stages and evaluation are not in it."
)
WATTS = 5  # of a server's processor under load, with its share of memory and supply: not measured
ENVIRONMENT = ("started", "source", "python", "cpu", "cores", "threads")
MEASURED = ("stage", "step", "steps_per_s")
MOST_COLUMNS = 5  # success on each of more tasks after every stage is too much for a table


def take(study: Path, figures: Path) -> list[str]:
    """Copy the figures of the runs that have ended; return the names of the new ones."""
    folders = [path.parent.name for path in sorted(study.glob("*/study.json"))]
    if folders:  # one of each suite
        return [f"{suite}/{name}" for suite in folders for name in take(study / suite, figures / suite)]
    _copy_json(study / "study.json", figures / "study.json")
    taken = []
    for _, run in evaluated_runs(study):
        copy = figures / "runs" / run.name
        if not (copy / "evaluation.json").exists():
            _take_run(run, copy)
            taken.append(run.name)
    return taken


def _take_run(run: Path, copy: Path) -> None:
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


def section(name: str) -> str:
    """Return the text on a plan."""
    plan = read_plan(RESULTS / f"{name}.yaml")
    runs = {suite: finished_runs(figures_of(name, plan, suite)) for suite in plan.suites}
    total = len(plan.strategies) * len(plan.seeds) * len(plan.suites)
    ended = sum(len(of_variant) for of_suite in runs.values() for of_variant in of_suite.values())
    lines = [f"{ended} of {total} runs have ended."]
    if not ended:
        return lines[0]
    lines[0] += " " + NOTE.format(starts={"choice": "for choices", "report": "for reports"}[plan.starts])
    runs_of = (
        (suite, f"{v}-{seed}") for suite, variants in runs.items() for v, seeds in variants.items() for seed in seeds
    )
    hours = sum(_minutes(figures_of(name, plan, suite) / "runs" / run) for suite, run in runs_of) / 60
    lines += ["", COST.format(hours=hours, energy=hours * WATTS / 1000, watts=WATTS)]
    for suite, of_suite in runs.items():
        if len(plan.suites) > 1:
            lines += ["", f"**{suite.suite.upper().replace('_', '-')}**"] + (
                [] if of_suite else ["", "No run has ended."]
            )
        if of_suite:
            lines += _of_suite(name, plan, suite, of_suite)
    return "\n".join(lines)


def figures_of(name: str, plan: Plan, suite: SuitePlan) -> Path:
    """Return the folder of the figures of a suite."""
    return RESULTS / name / suite.suite if len(plan.suites) > 1 else RESULTS / name


def image_of(name: str, plan: Plan, suite: SuitePlan) -> str:
    """Return the name of the figure of a suite."""
    return f"results_{name}_{suite.suite}.svg" if len(plan.suites) > 1 else f"results_{name}.svg"


def _of_suite(name: str, plan: Plan, suite: SuitePlan, runs: dict[str, dict[int, dict]]) -> Iterator[str]:
    """Yield the tables, figure and comparisons of a suite."""
    figures = figures_of(name, plan, suite)
    yield ""
    yield "| strategy | seeds | FWT | NBT | AUC | training of the later stages | minutes of a core for it |"
    yield "|---|---|---|---|---|---|---|"
    for variant in plan.strategies:
        of_variant = runs.get(variant.name, {})
        if of_variant:
            values = [over_seeds(metric, [run["metrics"][metric] for run in of_variant.values()]) for metric in RANGES]
            budget = variant.budget or plan.budgets()[1]
            minutes = [_minutes(figures / "runs" / f"{variant.name}-{seed}") for seed in of_variant]
            seeds = ", ".join(map(str, sorted(of_variant)))
            yield table_row(variant.name, seeds, *values, f"{budget} a task", _range(minutes))
    yield from _after_stages(plan, runs, image_of(name, plan, suite))
    yield from _comparisons(plan, runs, figures)


def _minutes(run: Path) -> float:
    """Return how long the stages took that a run trained, from their last measured speeds."""
    stages = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return sum(stage["step"] / stage["steps_per_s"] for stage in stages) / 60


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.0f}" if f"{low:.0f}" == f"{high:.0f}" else f"{low:.0f} to {high:.0f}"


def _after_stages(plan: Plan, runs: dict[str, dict[int, dict]], image: str) -> Iterator[str]:
    """Yield a figure, and a table of the success on each task after each stage."""
    names = [variant.name for variant in plan.strategies if variant.name in runs]
    matrices = {name: _means([run["matrix"] for run in runs[name].values()]) for name in names}
    if has_figure(runs):
        yield f"\n![Success on each task after each stage, by strategy](images/{image})"
    stages = len(matrices[names[0]])
    each_task = stages <= MOST_COLUMNS
    what = "Success on each task" if each_task else "Success, averaged over the tasks so far,"
    yield f"\n{what} in percent, means over the seeds, after each stage:"
    yield "\n" + table_row("", *names)
    yield "|---" * (len(names) + 1) + "|"
    for stage in range(stages):
        rows = [matrices[name][stage] for name in names]
        yield table_row(f"after {stage + 1}", *(_rates(row if each_task else [sum(row) / len(row)]) for row in rows))
    if not each_task:
        yield table_row(f"each task after {stages}", *(_rates(matrices[name][-1]) for name in names))


def _rates(values: list[float]) -> str:
    return ", ".join(f"{100 * value:.0f}" for value in values)


def _means(matrices: list[list[list[float | None]]]) -> list[list[float]]:
    """Return the mean of each known entry over the matrices of several seeds."""
    return [
        [sum(entry) / len(entry) for entry in zip(*rows, strict=True) if None not in entry]
        for rows in zip(*matrices, strict=True)
    ]


def has_figure(runs: dict[str, dict[int, dict]]) -> bool:
    """Return True if a strategy has several seeds, of which the figure shows means."""
    return any(len(of_variant) > 1 for of_variant in runs.values())


def draw(name: str) -> None:
    """Write the figures of a plan."""
    plan = read_plan(RESULTS / f"{name}.yaml")
    for suite in plan.suites:
        figures, image = figures_of(name, plan, suite), image_of(name, plan, suite)
        if not has_figure(finished_runs(figures)):
            continue
        runs = load_runs([path for _, path in evaluated_runs(figures)])
        content = io.BytesIO()
        with rc_context({"svg.hashsalt": Path(image).stem, "svg.fonttype": "none", "text.parse_math": False}):
            FigureCanvasSVG(forgetting(runs)).print_svg(content, metadata={"Date": None})
        (IMAGES / image).write_bytes(content.getvalue())


def finished_runs(figures: Path) -> dict[str, dict[int, dict]]:
    """Return strategy -> seed -> evaluation of every run that has ended."""
    runs: dict[str, dict[int, dict]] = defaultdict(dict)
    for variant, path in evaluated_runs(figures) if figures.is_dir() else ():
        runs[variant][int(path.name.rpartition("-")[2])] = json.loads((path / "evaluation.json").read_text())
    return runs


def _comparisons(plan: Plan, runs: dict[str, dict[int, dict]], figures: Path) -> Iterator[str]:
    """Yield the lines of the planned comparisons whose runs have all ended; a part of them decides nothing."""
    whole = {name for name, of_variant in runs.items() if set(of_variant) == set(plan.seeds)}
    waiting = 0
    for each in plan.comparisons:
        if {each.baseline, each.candidate} <= whole:
            yield ""
            yield render(
                compare([figures], baseline=each.baseline, candidates=[each.candidate], metrics=each.metrics),
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
    """Return docs/results.md with the present sections."""

    def present(found: re.Match) -> str:
        name = found[1]
        return f"<!-- {name}: written by scripts/results.py -->\n\n{section(name)}\n\n<!-- end of {name} -->"

    return SECTION.sub(present, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--take", nargs=2, metavar=("NAME", "FOLDER"), help="plan and study whose finished runs are copied first"
    )
    options = parser.parse_args()
    if options.take:
        name, folder = options.take
        print("taken:", ", ".join(take(Path(folder), RESULTS / name)) or "none")
    text = PAGE.read_text()
    for name in SECTION.findall(text):
        draw(name)
    PAGE.write_text(page(text))


if __name__ == "__main__":
    main()
