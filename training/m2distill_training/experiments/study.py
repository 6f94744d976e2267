"""Experiment of `m2distill study`: strategies and ablations on the same demonstrations and first stage.

    OUT/study.json           the settings; a study with other settings in the same folder is rejected
    OUT/data/                demonstrations, one file per task
    OUT/runs/<variant>-<seed>/   run folders; those of one seed share the first stage, in which no strategy differs
    OUT/results.json         every finished run: metrics with intervals, success matrix, gradient steps per second
    OUT/results.md           the same as tables
    OUT/report.html          the same as images

Finished runs and episodes are not repeated: the same command continues after an interruption, and one with further
variants or seeds adds to the study.
"""

import dataclasses
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from m2distill_policy.action import DEFAULT_SAMPLING
from m2distill_policy.errors import UserError, require_at_least, unknown_name
from m2distill_policy.utils.schema import with_schema
from m2distill_sim.assets import find_assets
from m2distill_sim.collect import collect
from m2distill_sim.suites import find_task
from m2distill_training import presets
from m2distill_training.cli.progress import show_episodes, show_training
from m2distill_training.config import TrainConfig
from m2distill_training.engine.train import train
from m2distill_training.evaluation.evaluate import EPISODES, evaluate_run
from m2distill_training.evaluation.metrics import t_interval, wilson_interval
from m2distill_training.report import write_report
from m2distill_training.report.runs import read_evaluation
from m2distill_training.runs.records import begin_folder, read_json, read_lines, write_atomic, write_lines
from m2distill_training.runs.run_folder import CONFIG, RunFolder
from m2distill_training.strategies import find_strategy, strategy_names
from m2distill_training.utils.schemas import is_count

FIRST = "first"  # the run that ends after the stage which all others share
STUDY = {
    "suite": str,
    "tasks": [is_count],
    "preset": str,
    **dict.fromkeys(("demos", "replay", "first_budget", "budget", "episodes", "max_steps"), is_count),
}  # the entries of study.json that are read again


VARIANTS: dict[str, tuple[str, dict[str, float]]] = {  # strategy and hyper-parameters; a strategy is its own variant
    "finetune": ("finetune", {}),
    "er": ("er", {}),
    "m2distill": ("m2distill", {}),
    "relabel": ("relabel", {}),
    "multitask": ("multitask", {}),
    "no_image": ("m2distill", {"image": 0.0}),
    "no_text": ("m2distill", {"text": 0.0}),
    "no_extra": ("m2distill", {"extra": 0.0}),
    "no_policy": ("m2distill", {"policy": 0.0}),
}


def strategy_of(variant: str) -> tuple[str, dict[str, float]]:
    """Return the strategy of a variant, and its hyper-parameters that differ from the preset. Raises UserError."""
    if variant in (*VARIANTS, FIRST):
        return VARIANTS.get(variant, ("finetune", {}))
    if ":" not in variant and variant not in strategy_names():
        raise UserError(
            f"{unknown_name('variant', variant, (*VARIANTS, *strategy_names()))}; "
            "a strategy of your own is a variant too: --variants module:Class"
        )
    return variant, {}


def is_joint(variant: str) -> bool:
    """Return True if a variant learns all tasks in one step."""
    return find_strategy(strategy_of(variant)[0]).joint


def folder_name(variant: str, seed: int) -> str:
    """Return the name of a run's folder: ffmpeg and Windows reject a colon in a path."""
    return f"{variant.replace(':', '.')}-{seed}"


@dataclass(frozen=True)
class Study:
    """What all runs have in common: options of `m2distill study`."""

    suite: str
    tasks: tuple[int, ...]
    demos: int
    replay: int
    first_budget: int
    budget: int
    episodes: int
    max_steps: int
    curve_points: int
    preset: str

    def config(self, variant: str, seed: int) -> TrainConfig:
        strategy, values = strategy_of(variant)
        base = presets.preset(self.preset, strategy, **values)
        return dataclasses.replace(
            base,
            seed=seed,
            curve_points=self.curve_points,
            replay=dataclasses.replace(base.replay, demos_per_task=self.replay),
            optim=dataclasses.replace(base.optim, budget=self._steps_per_task(variant)),
        )

    def _steps_per_task(self, variant: str) -> int:
        """Learning all at once takes as many gradient steps as learning one after the other."""
        total = self.first_budget + (len(self.tasks) - 1) * self.budget
        if variant == FIRST:
            return self.first_budget
        return total // len(self.tasks) if is_joint(variant) else self.budget


def study(out: Path, settings: Study, variants: tuple[str, ...], seeds: tuple[int, ...], workers: int = 2) -> None:
    """Learn, evaluate and compare; what is finished in `out` is not repeated.

    Args:
        out: folder of everything that is written.
        settings: what all runs have in common.
        variants: names of VARIANTS, or strategies.
        seeds: of initial weights, random draws and replayed demonstrations.
        workers: simulating processes; the results do not depend on their number.

    Raises:
        UserError: for settings that cannot be studied, and for a folder with another study.
    """
    _check(settings, variants, seeds, workers)
    begin_folder(out, "study", json.loads(json.dumps(asdict(settings))))
    console = Console()
    files = collect(
        settings.suite, settings.tasks, settings.demos, out / "data", workers=workers, assets=find_assets("builtin")
    )
    for seed in seeds:
        for variant in variants:
            console.rule(f"{variant}, seed {seed}", align="left")
            first = None if is_joint(variant) else _learn_and_evaluate(out, settings, files[:1], FIRST, seed, workers)
            _learn_and_evaluate(out, settings, files, variant, seed, workers, first)
            write_results(out)
    print((out / "results.md").read_text())


def _check(settings: Study, variants: tuple[str, ...], seeds: tuple[int, ...], workers: int) -> None:
    for variant in variants:
        strategy, _ = strategy_of(variant)
        if find_strategy(strategy).remembers:
            raise UserError(
                f"variant {variant!r} needs more of the first stage than the checkpoint that all variants share; "
                "train it by itself with m2distill train"
            )
    for task in settings.tasks:
        find_task(settings.suite, task)
    if len(set(settings.tasks)) < max(2, len(settings.tasks)):
        raise UserError(f"tasks {list(settings.tasks)} given, expected at least two and none twice")
    if not variants or not seeds:
        raise UserError("expected at least one of --variants and of --seeds")
    require_at_least(
        1,
        demos=settings.demos,
        replay=settings.replay,
        first_budget=settings.first_budget,
        budget=settings.budget,
        episodes=settings.episodes,
        max_steps=settings.max_steps,
        workers=workers,
    )
    require_at_least(0, curve_points=settings.curve_points, seeds=min(seeds))
    settings.config(FIRST, min(seeds))  # rejects an unknown preset


def _learn_and_evaluate(
    out: Path, settings: Study, files: list[Path], variant: str, seed: int, workers: int, first: RunFolder | None = None
) -> RunFolder:
    """Train and evaluate one run; `first` is the run of its first stage, whose episodes are not repeated."""
    run = RunFolder(out / "runs" / folder_name(variant, seed))
    with show_training(variant) as on_step:
        train(
            settings.config(variant, seed),
            files,
            run.path,
            resume=(run.path / "config.json").is_file(),
            start_from=first.checkpoint(1) if first else None,
            on_step=on_step,
        )
    if first and not (run.path / EPISODES).is_file():
        write_lines(run.path / EPISODES, [line | {"video": None} for line in read_lines(first.path / EPISODES)])
    with show_episodes() as callbacks:
        evaluate_run(
            run.path,
            [settings.suite],
            settings.episodes,
            sampling=DEFAULT_SAMPLING,
            seed=seed,
            max_steps=settings.max_steps,
            workers=workers,
            assets="builtin",
            callbacks=callbacks,
        )
    return run


def write_results(out: Path) -> None:
    """Write results.json, results.md and report.html of a study's evaluated runs."""
    evaluated = [
        (variant, path)
        for variant, path in study_runs(out)
        if variant != FIRST and (path / "evaluation.json").is_file()
    ]
    results = [_result(variant, path) for variant, path in evaluated]
    settings = read_json(out / "study.json", STUDY)
    write_atomic(
        out / "results.json", (json.dumps(with_schema({"study": settings, "runs": results}), indent=2) + "\n").encode()
    )
    write_atomic(out / "results.md", _tables(settings, results).encode())
    write_report(out / "report.html", [path for _, path in evaluated], title="m2distill study")


def study_runs(out: Path) -> list[tuple[str, Path]]:
    """Return the variant and folder of every run of a study: first those of VARIANTS, in its order."""
    runs = []
    for path in sorted((out / "runs").glob("*-*")):
        variant = path.name.rpartition("-")[0]
        if variant not in (*VARIANTS, FIRST) and (path / "config.json").is_file():
            variant = read_json(path / "config.json", CONFIG)["strategy"]
        runs.append((variant, path))
    order = {name: number for number, name in enumerate(VARIANTS)}
    return sorted(runs, key=lambda run: order.get(run[0], len(order)))


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
        f"preset {settings['preset']}, {settings['first_budget']} gradient steps for the first, "
        f"{settings['budget']} for each other; "
        f"{settings['demos']} demonstrations a task, {settings['replay']} of them replayed; "
        f"{settings['episodes']} episodes of at most {settings['max_steps']} steps for each rate. In percent, 95 % "
        "intervals of what the number of episodes leaves open; of a mean over seeds, the 95 % t interval over seeds.",
        "",
        "| variant | seed | FWT | NBT | AUC | success on all tasks at the end | LIBERO's FWT / NBT / AUC |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        scores = [_score(result, name) for name in ("fwt", "nbt", "auc")]
        low, high = wilson_interval(result["successes"], result["episodes"])
        lines.append(
            _row(
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
            means = (_over_seeds([metrics[name] for metrics in of_variant.values()]) for name in ("fwt", "nbt", "auc"))
            lines.append(_row(variant, f"mean of {len(of_variant)} seeds", *means, "", ""))
    for result in results:
        lines += [
            "",
            f"Success after each stage (row) on each task (column), {result['variant']}, seed {result['seed']}:",
            "",
        ]
        size = len(result["matrix"][-1])
        lines += [_row("", *range(1, size + 1)), "|---" * (size + 1) + "|"]
        lines += [
            _row(f"after {i + 1}", *("" if x is None else f"{100 * x:.0f}" for x in row))
            for i, row in enumerate(result["matrix"])
        ]
    return "\n".join(lines) + "\n"


def _row(*cells: object) -> str:
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


def _over_seeds(values: list[float | None]) -> str:
    """Return the mean over seeds with its t interval."""
    known = [value for value in values if value is not None]
    interval = t_interval(known)
    between = f" ({_percent(interval[0])} to {_percent(interval[1])})" if interval else ""
    return _percent(sum(known) / len(known) if known else None) + between
