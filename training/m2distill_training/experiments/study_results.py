"""Results of a study: tables, statistics and the report of its evaluated runs.

OUT/results.json     every finished run: metrics with intervals, success matrix, gradient steps per second
OUT/results.md       the same as tables
OUT/comparison.md    differences between strategies over seeds, with intervals and p-values
OUT/report.html      the runs as images
"""

import json
from collections.abc import Sequence
from pathlib import Path

from m2distill_policy.errors import UserError
from m2distill_policy.utils.schema import with_schema
from m2distill_training.evaluation.compare import compare
from m2distill_training.evaluation.metrics import RANGES, t_interval, wilson_interval
from m2distill_training.experiments.study_plan import FIRST, VARIANTS, Plan
from m2distill_training.report import write_report
from m2distill_training.report.comparison import render
from m2distill_training.report.runs import read_evaluation
from m2distill_training.runs.records import read_json, write_atomic
from m2distill_training.runs.run_folder import CONFIG, RunFolder
from m2distill_training.utils.schemas import is_count, is_text, optional

STUDY = {
    "suite": str,
    "tasks": [is_count],
    "preset": str,
    "first_budget": is_text,
    "budget": is_text,
    "demos": optional(is_count),
    **dict.fromkeys(("replay", "episodes", "max_steps"), is_count),
}  # the entries of study.json that are read again


def write_results(out: Path) -> None:
    """Write results.json, results.md and report.html of a study's evaluated runs."""
    write_report(out / "report.html", write_tables(out), title="m2distill study")


def write_tables(out: Path) -> list[Path]:
    """Write results.json and results.md of a study's evaluated runs; return their folders."""
    evaluated = evaluated_runs(out)
    results = [_result(variant, path) for variant, path in evaluated]
    settings = read_json(out / "study.json", STUDY)
    write_atomic(
        out / "results.json", (json.dumps(with_schema({"study": settings, "runs": results}), indent=2) + "\n").encode()
    )
    write_atomic(out / "results.md", _tables(settings, results).encode())
    return [path for _, path in evaluated]


def write_comparison(out: Path, plan: Plan) -> None:
    """Write the comparisons of the plan, or those of every strategy with the first one.

    Those whose runs cannot be compared yet are left out, with a line on the terminal.
    """
    names = [variant.name for variant in plan.strategies]
    wanted: list[tuple[str, list[str], Sequence[str]]] = [
        (each.baseline, [each.candidate], each.metrics) for each in plan.comparisons
    ]
    pages = []
    for baseline, candidates, metrics in wanted or [(names[0], [n for n in names if n != names[0]], ())]:
        try:
            result = compare([out], baseline=baseline, candidates=candidates, metrics=metrics)
        except UserError as error:
            print(f"{out}: no comparison with {baseline}: {error}")
            continue
        pages.append(render(result, "markdown"))
    if pages:
        write_atomic(out / "comparison.md", "\n".join(pages).encode())


def study_runs(out: Path) -> list[tuple[str, Path]]:
    """Return the variant and folder of every run of a study: first those of VARIANTS, in its order."""
    runs = []
    for path in sorted((out / "runs").glob("*-*")):
        variant = path.name.rpartition("-")[0]
        if (path / "config.json").is_file():  # a folder's name has no colon
            strategy = read_json(path / "config.json", CONFIG)["strategy"]
            variant = strategy if strategy.replace(":", ".") == variant else variant
        runs.append((variant, path))
    order = {name: number for number, name in enumerate(VARIANTS)}
    return sorted(runs, key=lambda run: order.get(run[0], len(order)))


def evaluated_runs(out: Path) -> list[tuple[str, Path]]:
    """Return the variant and folder of every evaluated run of a study, without the shared first stage."""
    return [
        (variant, path)
        for variant, path in study_runs(out)
        if variant != FIRST and (path / "evaluation.json").is_file()
    ]


def _result(variant: str, path: Path) -> dict:
    evaluation, config = read_evaluation(path), read_json(path / "config.json", CONFIG)
    last = evaluation["stages"][-1]["tasks"]
    rates = {line["stage"]: line.get("steps_per_s") for line in RunFolder(path).metrics()}
    return {
        "variant": variant,
        "seed": config["seed"],
        "successes": sum(task["successes"] for task in last),
        "episodes": sum(task["episodes"] for task in last),
        "steps_per_s": rates,
        **{name: evaluation.get(name) for name in ("metrics", "intervals_95", "libero_metrics", "matrix")},
    }


def _tables(settings: dict, results: list[dict]) -> str:
    lines = [
        f"{settings['suite']}, tasks {', '.join(map(str, settings['tasks']))} in this order; "
        f"preset {settings['preset']}, {settings['first_budget']} for the first, {settings['budget']} for each other; "
        f"{settings['demos'] or 'all'} demonstrations a task, {settings['replay']} of them replayed; "
        f"{settings['episodes']} episodes of at most {settings['max_steps']} steps for each rate. In percent, 95 % "
        "intervals of what the number of episodes leaves open; of a mean over seeds, the 95 % t interval over seeds, "
        "cut at the range of the metric.",
        "",
        "| variant | seed | FWT | NBT | AUC | success on all tasks at the end | LIBERO's FWT / NBT / AUC |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        scores = [_score(result, name) for name in ("fwt", "nbt", "auc")]
        low, high = wilson_interval(result["successes"], result["episodes"])
        lines.append(
            table_row(
                result["variant"],
                result["seed"],
                *scores,
                f"{result['successes']} of {result['episodes']} ({100 * low:.0f} to {100 * high:.0f})",
                _liberos(result),
            )
        )
    for variant in dict.fromkeys(result["variant"] for result in results):
        of_variant = {result["seed"]: result["metrics"] for result in results if result["variant"] == variant}
        if len(of_variant) > 1:
            means = (over_seeds(name, [metrics[name] for metrics in of_variant.values()]) for name in RANGES)
            lines.append(table_row(variant, f"mean of {len(of_variant)} seeds", *means, "", ""))
    for result in results:
        lines += [
            "",
            f"Success after each stage (row) on each task (column), {result['variant']}, seed {result['seed']}:",
            "",
        ]
        size = len(result["matrix"][-1])
        lines += [table_row("", *range(1, size + 1)), "|---" * (size + 1) + "|"]
        lines += [
            table_row(f"after {i + 1}", *("" if x is None else f"{100 * x:.0f}" for x in row))
            for i, row in enumerate(result["matrix"])
        ]
    return "\n".join(lines) + "\n"


def table_row(*cells: object) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def _score(result: dict, name: str) -> str:
    interval = result["intervals_95"][name]
    between = f" ({_percent(interval[0])} to {_percent(interval[1])})" if interval else ""
    return _percent(result["metrics"][name]) + between


def _liberos(result: dict) -> str:
    metrics = result["libero_metrics"]
    return " / ".join(_percent(metrics[name]) for name in ("fwt", "nbt", "auc")) if metrics else ""


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"


def over_seeds(metric: str, values: list[float | None]) -> str:
    """Return the mean of a metric over seeds in percent, with its 95 % t interval from two seeds on."""
    known = [value for value in values if value is not None]
    interval = t_interval(known, RANGES[metric])
    between = f" ({_percent(interval[0])} to {_percent(interval[1])})" if interval else ""
    return _percent(sum(known) / len(known) if known else None) + between
