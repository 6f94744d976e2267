"""Comparison of strategies over seeds, from the evaluations of their runs.

Runs that differ only in their seed form a group. Two groups are paired by seed, task and start, so what these have in
common cancels. paired.py has the statistics, report/comparison.py the tables and the figure.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from m2distill_policy.errors import UserError, require_at_least, unknown_name
from m2distill_training.evaluation.compared_runs import ComparedRun, read_groups
from m2distill_training.evaluation.paired import (
    LEAST_SEEDS,
    METRICS,
    PairedRuns,
    holm,
    percentile_interval,
    sign_flip_p,
    standardised_difference,
)
from m2distill_training.report.runs import number_format

RESAMPLES = 10_000


@dataclass(frozen=True)
class Comparison:
    """One metric of a candidate compared with a baseline. Rates are between 0 and 1; None is undefined."""

    baseline: str
    candidate: str
    metric: str
    higher_is_better: bool
    seeds: tuple[int, ...]  # common seeds for which the metric is defined
    baseline_mean: float | None
    candidate_mean: float | None
    difference: float | None  # candidate minus baseline
    interval_95: tuple[float, float] | None
    per_seed: tuple[float, ...]  # differences in the order of `seeds`
    effect_size: float | None  # mean / standard deviation of `per_seed`
    p: float | None
    p_holm: float | None
    left_out: int  # pairs of seed and task in which a run had no success to lose


@dataclass(frozen=True)
class ComparisonResult:
    """What `m2distill compare` reports."""

    groups: dict[str, tuple[int, ...]]  # label -> seeds
    settings: dict  # of all evaluations
    resamples: int
    seed: int
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict:
        return asdict(self)


def compare(
    runs: Sequence[str | Path],
    *,
    baseline: str | None = None,
    candidates: Sequence[str] = (),
    metrics: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ComparisonResult:
    """Compare groups of evaluated runs that differ only in their seed, as `m2distill compare` does.

    Args:
        runs: Run folders and folders of studies; NAME=FOLDER names the group of a run.
        baseline: Label of a group; default: the first.
        candidates: Labels of the groups compared with it; default: all others.
        metrics: Names of METRICS; default: those per task, and per stage if a stage has several tasks.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.

    Returns:
        The comparisons, with notes about what they do not show.

    Raises:
        UserError: The runs cannot be compared, or an argument is out of range.
    """
    require_at_least(100, resamples=resamples)
    require_at_least(0, seed=seed)
    groups = read_groups(runs)
    first = next(iter(groups)) if baseline is None else baseline
    others = tuple(candidates) or tuple(label for label in groups if label != first)
    for label in (first, *others):
        if label not in groups:
            raise UserError(unknown_name("group", label, groups))
    if not others or first in others or len(set(others)) < len(others):
        raise UserError(
            f"baseline {first!r} with candidates {list(others)}: expected different groups of {list(groups)}; "
            "give the runs of at least two strategies"
        )
    for name in metrics:
        if name not in METRICS:
            raise UserError(unknown_name("metric", name, METRICS))
    compared = [
        comparison
        for label in others
        for comparison in _compare_pair(groups, first, label, tuple(dict.fromkeys(metrics)), resamples, seed)
    ]
    compared = _with_holm(compared)
    chosen = {label: groups[label] for label in (first, *others)}
    return ComparisonResult(
        {label: tuple(run.seed for run in group) for label, group in chosen.items()},
        groups[first][0].settings,
        resamples,
        seed,
        tuple(compared),
        tuple(_notes(chosen, first, compared)),
    )


def failed_gates(result: ComparisonResult, gates: dict[str, float]) -> list[str]:
    """Return one line for every comparison that does not show non-inferiority within the margin of its metric.

    The lower end of the 95 % interval of candidate minus baseline, signed so that higher is better, must be at least
    -margin. Raises UserError for a metric that is not compared or not defined.
    """
    failed = []
    for metric, margin in gates.items():
        of_metric = [comparison for comparison in result.comparisons if comparison.metric == metric]
        if not of_metric:
            raise UserError(unknown_name("metric of --gate", metric, {x.metric for x in result.comparisons}))
        for x in of_metric:
            if x.interval_95 is None:
                raise UserError(f"{metric} of {x.candidate} is not defined for these runs; choose another --gate")
            low = x.interval_95[0] if x.higher_is_better else -x.interval_95[1]
            if low < -margin - 1e-12:
                failed.append(
                    f"gate {metric}: {x.candidate} may be worse than {x.baseline} by {-100 * low:.1f} percentage "
                    f"points, allowed {100 * margin:.1f}"
                )
    return failed


def _compare_pair(
    groups: dict[str, list[ComparedRun]],
    baseline: str,
    candidate: str,
    metrics: tuple[str, ...],
    resamples: int,
    seed: int,
) -> list[Comparison]:
    """Return the comparisons of two groups. Raises UserError if they have no seed in common."""
    a, b = ({run.seed: run for run in groups[label]} for label in (baseline, candidate))
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        raise UserError(
            f"{baseline} has seeds {sorted(a)} and {candidate} {sorted(b)}, expected a common one; "
            "train both with the same --seed"
        )
    one, other = a[seeds[0]], b[seeds[0]]
    same_stages = one.stages == other.stages
    several = 1 < one.stages < len(one.learned)
    chosen = metrics or tuple(name for name, info in METRICS.items() if several or not info.per_stage)
    found = []
    for name in chosen:
        if not same_stages:  # one of the two learned all tasks jointly: only the end is comparable
            found.append(_final_only(name, baseline, candidate, a, b, seeds, resamples, seed))
            continue
        was, now = (np.stack([group[s].episodes for s in seeds]) for group in (a, b))
        pair = PairedRuns(was, now, np.array(one.learned))
        found.append(_compare_metric(name, baseline, candidate, pair, seeds, resamples, seed))
    return found


def _final_only(
    name: str,
    baseline: str,
    candidate: str,
    a: dict[int, ComparedRun],
    b: dict[int, ComparedRun],
    seeds: list[int],
    resamples: int,
    seed: int,
) -> Comparison:
    """Compare a joint run with a sequential one: success after the last stage alone, other metrics are undefined."""
    if name != "final":
        higher = METRICS[name].higher_is_better
        return Comparison(baseline, candidate, name, higher, (), None, None, None, None, (), None, None, None, 0)
    was, now = (np.stack([group[s].episodes[:, -1:] for s in seeds]) for group in (a, b))
    pair = PairedRuns(was, now, np.zeros(len(a[seeds[0]].learned), dtype=int))
    return _compare_metric(name, baseline, candidate, pair, seeds, resamples, seed)


def _compare_metric(
    name: str, baseline: str, candidate: str, pair: PairedRuns, seeds: list[int], resamples: int, seed: int
) -> Comparison:
    terms = pair.terms(name)
    was, now = terms.per_seed()
    defined = np.isfinite(now - was)
    differences = (now - was)[defined]
    n = len(differences)
    drawn = terms.bootstrap(resamples, np.random.default_rng(seed)) if n else np.array([])
    return Comparison(
        baseline,
        candidate,
        name,
        METRICS[name].higher_is_better,
        tuple(s for s, known in zip(seeds, defined, strict=True) if known),
        float(was[defined].mean()) if n else None,
        float(now[defined].mean()) if n else None,
        float(differences.mean()) if n else None,
        percentile_interval(drawn, n),
        tuple(map(float, differences)),
        standardised_difference(differences),
        sign_flip_p(differences, seed) if n > 1 else None,
        None,
        terms.left_out(),
    )


def _with_holm(compared: list[Comparison]) -> list[Comparison]:
    """Return the comparisons with p-values that are adjusted for all of them."""
    adjusted = iter(holm([x.p for x in compared if x.p is not None]))
    return [x if x.p is None else replace(x, p_holm=next(adjusted)) for x in compared]


def _notes(groups: dict[str, list[ComparedRun]], baseline: str, compared: list[Comparison]) -> list[str]:
    """Return what a reader must know before believing the numbers."""
    notes = []
    seeds = {run.seed for run in groups[baseline]}
    for label, group in groups.items():
        if other := sorted(seeds ^ {run.seed for run in group}):
            notes.append(f"{label}: seeds {', '.join(map(str, other))} have no partner in {baseline} and are not used.")
    pairs = min((len(x.seeds) for x in compared if x.seeds), default=0)
    tests = sum(x.p is not None for x in compared)
    if pairs <= 1:
        notes.append(
            "One common seed: the intervals cover tasks and episodes alone. No claim about strategies follows; "
            "train more seeds."
        )
    elif pairs < LEAST_SEEDS:
        notes.append(
            f"{pairs} common seeds: p cannot be below {2 / 2**pairs:.3g}. p < 0.05 needs at least {LEAST_SEEDS} seeds."
        )
    if pairs > 1 and tests > 1:
        needed = next(n for n in itertools.count(LEAST_SEEDS) if tests * 2 / 2**n < 0.05)
        notes.append(
            f"Holm's correction covers {tests} comparisons: the smallest adjusted p can be below 0.05 from {needed} "
            "seeds on. Fewer --metrics need fewer seeds."
        )
    for x in compared:
        if x.left_out:
            notes.append(
                f"{x.metric}, {x.candidate}: {x.left_out} pairs of seed and task left out, as a run had no success to "
                "lose when it learned the task."
            )
    everyone = [run for group in groups.values() for run in group]
    shared, all_of_task = (everyone[0].settings[x] for x in ("episodes of earlier tasks", "episodes per task"))
    if shared != all_of_task:
        notes.append(
            f"Earlier tasks have {shared} episodes, new ones {all_of_task}. All metrics are of the "
            f"{shared} starts that every stage has."
        )
    if any(run.settings["starts"] != "report" for run in everyone):
        notes.append("These starts are for choices; report success on those of m2distill evaluate --starts report.")
    if any(run.versions != everyone[0].versions for run in everyone):
        notes.append("The evaluations ran on different versions of the simulator's libraries.")
    if any(run.data != other.data for run, other in itertools.combinations(everyone, 2) if run.seed == other.seed):
        notes.append("Runs of the same seed learned from different demonstrations.")
    return notes + _notes_on_formats(everyone)


def _notes_on_formats(runs: list[ComparedRun]) -> list[str]:
    """Return which seeds were trained in which number format, if there are several."""
    seeds: dict[str, set[int]] = defaultdict(set)
    for run in runs:
        seeds[number_format(run.config)].add(run.seed)
    if len(seeds) < 2:
        return []
    trained = "; ".join(f"{name}, seeds {', '.join(map(str, sorted(of)))}" for name, of in sorted(seeds.items()))
    notes = [f"Number formats of the training: {trained}."]
    if sum(map(len, seeds.values())) > len(set().union(*seeds.values())):
        notes.append("Runs of the same seed were trained in different number formats.")
    return notes
