"""Curves of an episode as inline SVG, small enough for a page with hundreds of episodes."""

import html
from collections.abc import Sequence

import numpy as np

WIDTH, HEIGHT = 320, 110  # of a plot, in units of its view box
LEFT, RIGHT, TOP, BOTTOM = 40, 6, 16, 26
MOST_POINTS = 300  # of a curve; longer ones are thinned


def plot(title: str, unit: str, curves: Sequence[tuple[str, np.ndarray]], marked: np.ndarray | None = None) -> str:
    """Return one plot over steps. Its class `cursor` line is moved by the page.

    Args:
        title: what is drawn.
        unit: of the vertical axis.
        curves: name and values (T,) of each.
        marked: True (T,) for steps with a mark at the lower edge.
    """
    steps = len(curves[0][1])
    values = np.concatenate([x for _, x in curves])
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT

    def x(step: np.ndarray) -> np.ndarray:
        return LEFT + (right - LEFT) * step / max(1, steps - 1)

    def y(value: np.ndarray) -> np.ndarray:
        return bottom - (bottom - TOP) * (value - low) / (high - low)

    index = np.unique(np.linspace(0, steps - 1, min(steps, MOST_POINTS)).round().astype(int))
    lines = []
    for number, (name, series) in enumerate(curves):
        points = " ".join(f"{px:.1f},{py:.1f}" for px, py in zip(x(index), y(series[index]), strict=True))
        lines.append(f'<polyline class="c{number % 8}" points="{points}"><title>{html.escape(name)}</title></polyline>')
    for place in x(np.flatnonzero(marked)) if marked is not None else ():
        lines.append(f'<rect class="mark" x="{place - 1:.1f}" y="{bottom}" width="2" height="5"/>')
    names = ", ".join(name for name, _ in curves)
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(f"{title}: {names}")}">'
        f'<text x="{LEFT}" y="11" class="title">{html.escape(title)}, {html.escape(unit)}</text>'
        f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>'
        f'<text x="{LEFT - 4}" y="{TOP + 4}" class="end">{high:.3g}</text>'
        f'<text x="{LEFT - 4}" y="{bottom}" class="end">{low:.3g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 12}">0</text><text x="{right}" y="{HEIGHT - 12}" class="end">{steps - 1}</text>'
        f'<text x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 2}" class="middle">step</text>'
        f"{''.join(lines)}"
        f'<line class="cursor" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{bottom}" data-left="{LEFT}" '
        f'data-right="{right}"/>'
        "</svg>"
    )
