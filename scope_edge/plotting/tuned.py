"""What `tune` foresaw at each alpha, and what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scope_edge.evaluating.report import Report, Tuned
from scope_edge.plotting.canvas import panels, percent_axis, ticks
from scope_edge.plotting.palette import OBSERVED, PAPER, PREDICTED
from scope_edge.plotting.picture import Picture, nothing, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, TITLE = "tuned", "What alpha promises, and what came"


def tuned(report: Report) -> Picture:
    """The picture of promises and results over alpha."""
    steps = sorted(report.tuned, key=lambda one: one.alpha)
    if not steps:
        return nothing(NAME, TITLE, "Nothing was foreseen: choices were not replayed.")

    def draw(figure: Figure) -> None:
        _draw(figure, steps)

    caption = (
        "Foreseen from fingerprints alone, before any of the scored queries was seen (dashed), and realised on them (solid), by"
        " alpha. Cost is in US dollars per 1,000 queries."
    )
    return Picture(NAME, TITLE, _headline(steps), caption, rows_of(steps), (9.6, 4.1), draw)


def _headline(steps: Sequence[Tuned]) -> str:
    worst = max(steps, key=lambda one: abs(one.accuracy - one.expected_accuracy))
    text = f"Accuracy is at most {100 * abs(worst.accuracy - worst.expected_accuracy):.1f} points off what was foreseen"
    ratios = [
        abs(one.usd_per_1k / one.expected_usd_per_1k - 1)
        for one in steps
        if one.usd_per_1k is not None and one.expected_usd_per_1k
    ]
    return text + (f", cost at most {max(ratios):.0%} off" if ratios else "")


def _draw(figure: Figure, steps: Sequence[Tuned]) -> None:
    right, cost = panels(figure, 2, 0.75, 0.95, 0.6, 0.3)
    came, foreseen = [one.accuracy for one in steps], [one.expected_accuracy for one in steps]
    _panel(right, "right", steps, foreseen, came)
    low, high = min(*came, *foreseen), max(*came, *foreseen)
    pad = max(0.12 * (high - low), 0.01)
    right.set_ylim(max(low - pad, 0), min(high + pad, 1.0))
    percent_axis(right.yaxis, *right.get_ylim())
    _panel(
        cost,
        "$ per 1,000 queries",
        steps,
        [one.expected_usd_per_1k for one in steps],
        [one.usd_per_1k for one in steps],
    )
    top = cost.get_ylim()[1]
    step = float(cost.get_yticks()[1] - cost.get_yticks()[0])
    digits = next((n for n in range(9) if abs(round(step, n) - step) < 1e-3 * step), 9)
    marks = [i * step for i in range(int(top / step + 1e-9) + 1)]
    ticks(cost.yaxis, marks, [f"${mark:.{digits}f}" for mark in marks])
    cost.set_ylim(0, top)


def _panel(
    ax: Axes, title: str, steps: Sequence[Tuned], foreseen: Sequence[float | None], came: Sequence[float | None]
) -> None:
    ax.set_title(title, loc="left", fontsize=10)
    ax.set_xlabel("alpha")
    for values, colour, style, name in ((foreseen, PREDICTED, (0, (4, 2)), "foreseen"), (came, OBSERVED, "-", "came")):
        known = [(one.alpha, value) for one, value in zip(steps, values, strict=True) if value is not None]
        if known:
            x, y = zip(*known, strict=True)
            ax.plot(x, y, color=colour, lw=2.0, ls=style, marker="o", ms=5, mec=PAPER, mew=0.7, label=name)
    if ax.lines:
        ax.legend(frameon=False, loc="lower right" if title == "right" else "upper left", fontsize=9.5, handlelength=3)
    else:
        ax.text(0.5, 0.5, "not known", transform=ax.transAxes, ha="center")
