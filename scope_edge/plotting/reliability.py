"""Reliability: is what is said to be 70 % likely right seven times in ten?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scope_edge.evaluating.report import ALL, UNSEEN, ReliabilityBin, Report
from scope_edge.plotting.canvas import axes, percent_axis
from scope_edge.plotting.names import plain
from scope_edge.plotting.palette import GRID, MUTED, OURS, PAPER, line_of
from scope_edge.plotting.picture import Picture, nothing, rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches: the key's width, and a row of it.
_KEY, _ROW = 3.0, 0.52
NAME, TITLE = "reliability", "Are the probabilities true?"


def routers(report: Report) -> dict[str, list[ReliabilityBin]]:
    """Router -> its tenths by rising p; scope-edge first, then those that are off the least."""
    found: dict[str, list[ReliabilityBin]] = {}
    for one in report.reliability:
        if one.n:
            found.setdefault(one.router, []).append(one)
    for tenths in found.values():
        tenths.sort(key=lambda one: one.predicted)
    return dict(sorted(found.items(), key=lambda pair: (pair[0] != OURS, off(pair[1]), pair[0])))


def off(tenths: Sequence[ReliabilityBin]) -> float:
    """The mean |mean p - share right| over outcomes: the expected calibration error."""
    return sum(one.n * abs(one.predicted - one.observed) for one in tenths) / sum(one.n for one in tenths)


def reliability(report: Report) -> Picture:
    """The picture of predicted against observed."""
    found = routers(report)
    if not found:
        return nothing(NAME, TITLE, "Nothing was predicted, so there is nothing to compare with what came.")

    def draw(figure: Figure) -> None:
        _draw(figure, found)

    size = (9.0, max(5.6, 1.75 + _ROW * len(found)))
    return Picture(NAME, TITLE, _headline(found), _caption(report, found), rows_of(report.reliability), size, draw)


def _headline(found: dict[str, list[ReliabilityBin]]) -> str:
    router = next(iter(found))
    return f"What {plain(router)} says is off by {100 * off(found[router]):.1f} points on average"


def _caption(report: Report, found: dict[str, list[ReliabilityBin]]) -> str:
    rows = report.prediction.get(OURS, {})
    pooled = rows.get(UNSEEN) or rows.get(ALL)
    chance = (
        ""
        if pooled is None
        else f" At this size even perfect probabilities of {OURS} would be off by {100 * pooled.ece_floor:.1f} points."
    )
    n = max(sum(one.n for one in tenths) for tenths in found.values())
    return (
        "Each point is a tenth of a router's predictions, by size: what it said on average, and the share that was right. On"
        " the diagonal the two agree; below it too much was promised. The rows of ticks show where the tenths lie, which is"
        f" where the predictions are, and how far each router is off on average. {n:,} outcomes, of models known by their"
        f" anchors only where there are such.{chance}"
    )


def _draw(figure: Figure, found: dict[str, list[ReliabilityBin]]) -> None:
    ax = axes(figure, 0.65, _KEY + 0.2, 0.6, 0.3)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    percent_axis(ax.xaxis)
    percent_axis(ax.yaxis)
    ax.set_title("came: share right", loc="left", fontsize=10)
    ax.set_xlabel("said: mean p")
    ax.plot([0, 1], [0, 1], color=MUTED, lw=1.0, ls=(0, (4, 3)), zorder=2)
    ax.text(0.03, 0.95, "too modest", color=MUTED, fontsize=9.5, va="center")
    ax.text(0.97, 0.05, "too hopeful", color=MUTED, fontsize=9.5, va="center", ha="right")
    for rank, (router, tenths) in enumerate(found.items()):
        look = line_of(router)
        x, y = [one.predicted for one in tenths], [one.observed for one in tenths]
        ours = router == OURS
        style: Any = (0, look.dashes) if look.dashes else "-"
        order = 5 + 3 * ours - 0.01 * rank
        ax.plot(x, y, color=look.colour, lw=look.width * 0.8, ls=style, zorder=order)
        dot: dict[str, Any] = {"ms": 7 if ours else 4.5, "mec": PAPER, "mew": 0.8, "clip_on": False}
        ax.plot(x, y, "o", color=look.colour, zorder=order + 0.005, **dot)
    _key(figure, found)


def _key(figure: Figure, found: dict[str, list[ReliabilityBin]]) -> None:
    """The routers beside the axes, each with its line, how far it is off, and where its tenths lie."""
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    left, right, top = (width - _KEY + 0.15) / width, (width - 0.2) / width, height - 1.0
    step = min(_ROW, (top - 0.7) / len(found))

    def line(x: Sequence[float], y: float, **how: Any) -> None:
        figure.add_artist(Line2D(x, [y] * len(x), transform=figure.transFigure, **how))

    figure.text(right, (top + 0.12) / height, "off by, points", ha="right", va="center", color=MUTED, fontsize=9)
    for rank, (router, tenths) in enumerate(found.items()):
        look = line_of(router)
        y, low = (top - 0.16 - step * rank) / height, (top - 0.36 - step * rank) / height
        style: Any = (0, look.dashes) if look.dashes else "-"
        line([left, left + 0.32 / width], y, color=look.colour, lw=look.width, ls=style)
        how: dict[str, Any] = {"va": "center", "fontsize": 9.5, "fontweight": "bold" if router == OURS else "normal"}
        figure.text(left + 0.42 / width, y, plain(router), **how)
        figure.text(right, y, f"{100 * off(tenths):.1f}", ha="right", **how)
        line([left, right], low, color=GRID, lw=0.8)
        marks = [left + one.predicted * (right - left) for one in tenths]
        line(marks, low, color=look.colour, ls="none", marker="|", ms=7, mew=1.8)
    y = (top - 0.16 - step * len(found)) / height
    small: dict[str, Any] = {"color": MUTED, "fontsize": 9, "va": "center"}
    figure.text(left, y, "0%", **small)
    figure.text((left + right) / 2, y, "each tick a tenth", ha="center", **small)
    figure.text(right, y, "100%", ha="right", **small)
