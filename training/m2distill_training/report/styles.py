"""Colours by method, and lines and markers by seed.

The colours are Paul Tol's "muted" scheme with a grey: ten that are distinct for colour-blind readers. A
shipped strategy has the same colour on every page, unless two of a page share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from m2distill_training.report.runs import ReportedRun, methods_of

COLORS = (
    "#332288",
    "#cc6677",
    "#117733",
    "#88ccee",
    "#aa4499",
    "#ddcc77",
    "#882255",
    "#44aa99",
    "#999933",
    "#666666",
)
PREFERRED = ("m2distill", "finetune", "er", "multitask", "ewc", "packnet", "relabel", "recall", "stored", "average")
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v")


@dataclass(frozen=True)
class RunStyle:
    """How a run is drawn."""

    color: str
    line: str
    marker: str


def method_colors(methods: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return {method: colour}, without a repeat for up to ten.

    Args:
        methods: text that identifies a method, and name of its strategy, in the order of the page.
    """
    colors: dict[str, str] = {}
    for method, strategy in methods:
        if method in colors:
            continue
        free = [color for color in COLORS if color not in colors.values()] or [COLORS[len(colors) % len(COLORS)]]
        own = COLORS[PREFERRED.index(strategy)] if strategy in PREFERRED else ""
        others = {COLORS[PREFERRED.index(name)] for _, name in methods if name in PREFERRED}
        colors[method] = own if own in free else next((x for x in free if x not in others), free[0])
    return colors


def run_styles(runs: Sequence[ReportedRun]) -> list[RunStyle]:
    """Return the style of every run: the colour of its method, the line and the marker of its seed."""
    methods = methods_of([run.config for run in runs])
    colors = method_colors([(method, run.strategy) for method, run in zip(methods, runs, strict=True)])
    seeds = list(dict.fromkeys(run.config["seed"] for run in runs))
    numbers = [seeds.index(run.config["seed"]) for run in runs]
    return [
        RunStyle(colors[method], LINES[n % len(LINES)], MARKERS[n % len(MARKERS)])
        for method, n in zip(methods, numbers, strict=True)
    ]
