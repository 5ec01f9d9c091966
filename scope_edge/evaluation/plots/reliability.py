"""Reliability: is what is said to be 70 % likely right seven times in ten?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from scope_edge.evaluation.plots.canvas import (
    MUTED,
    OURS,
    PAPER,
    Picture,
    legend,
    line_of,
    nothing,
    percent_axis,
    rows_of,
)
from scope_edge.evaluation.plots.names import plain
from scope_edge.evaluation.report import ALL, UNSEEN, EvaluationReport, ReliabilityBin

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME, TITLE = "reliability", "Are the probabilities true?"


def routers(report: EvaluationReport) -> dict[str, list[ReliabilityBin]]:
    """Return each router's tenths by rising p; scope-edge first, then the router with the smallest error."""
    found: dict[str, list[ReliabilityBin]] = {}
    for one in sorted(report.reliability, key=lambda one: one.predicted):
        if one.n:
            found.setdefault(one.router, []).append(one)
    return dict(sorted(found.items(), key=lambda pair: (pair[0] != OURS, off(pair[1]), pair[0])))


def off(tenths: Sequence[ReliabilityBin]) -> float:
    """Return the mean |mean p - share right| over outcomes: the expected calibration error."""
    return sum(one.n * abs(one.predicted - one.observed) for one in tenths) / sum(one.n for one in tenths)


def reliability(report: EvaluationReport) -> Picture:
    """Return the picture of predicted against observed."""
    found = routers(report)
    if not found:
        return nothing(NAME, TITLE, "Nothing was predicted, so there is nothing to compare with the outcomes.")

    def draw(figure: Figure) -> None:
        _draw(figure, found)

    first, tenths = next(iter(found.items()))
    headline = f"The probabilities of {plain(first)} are off by {100 * off(tenths):.1f} points on average"
    return Picture(NAME, TITLE, headline, _caption(report, found), rows_of(report.reliability), (9.0, 5.6), draw)


def _caption(report: EvaluationReport, found: Mapping[str, Sequence[ReliabilityBin]]) -> str:
    rows = report.prediction.get(OURS, {})
    pooled = rows.get(UNSEEN) or rows.get(ALL)
    chance = (
        ""
        if pooled is None
        else f" With so many outcomes even perfect probabilities of {OURS} would be off by {100 * pooled.ece_floor:.1f} points."
    )
    n = max(sum(one.n for one in tenths) for tenths in found.values())
    return (
        "Each point is a tenth of a router's predictions, by size: the mean probability, and the share that was right. On"
        " the diagonal the two agree; below it the router promises too much. The figure beside a router is how far it is"
        f" off on average. {n:,} outcomes, only of models known by their anchors if there are any.{chance}"
    )


def _draw(figure: Figure, found: Mapping[str, Sequence[ReliabilityBin]]) -> None:
    ax = figure.add_subplot(xlim=(0, 1), ylim=(0, 1), xlabel="predicted: mean p", title="observed: share right")
    percent_axis(ax.xaxis)
    percent_axis(ax.yaxis)
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle="--", zorder=2)
    ax.text(0.03, 0.95, "too modest", color=MUTED, va="center")
    ax.text(0.97, 0.05, "too hopeful", color=MUTED, va="center", ha="right")
    for rank, (router, tenths) in enumerate(found.items()):
        x, y = [one.predicted for one in tenths], [one.observed for one in tenths]
        look = line_of(router) | {"marker": "o", "markersize": 7 if router == OURS else 4.5, "mec": PAPER, "mew": 0.8}
        # Figure spaces, as wide as a digit, keep the column straight.
        label = f"{100 * off(tenths):4.1f}".replace(" ", "\u2007") + f"  {plain(router)}"
        ax.plot(x, y, label=label, zorder=5 + 3 * (router == OURS) - 0.01 * rank, clip_on=False, **look)
    legend(ax, "off by, points")
