"""Reliability: is what is said to be 70 % likely right seven times in ten?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scope_edge.evaluating.report import ALL, UNSEEN, ReliabilityBin, Report
from scope_edge.plotting.canvas import axes, percent_axis
from scope_edge.plotting.names import percent, plain
from scope_edge.plotting.palette import GRID, MUTED, OURS, PAPER, line_of
from scope_edge.plotting.picture import Picture, nothing, rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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

    size = (8.2, 5.6 + 0.2 * len(found))
    return Picture(NAME, TITLE, _headline(found), _caption(report, found), rows_of(report.reliability), size, draw)


def _headline(found: dict[str, list[ReliabilityBin]]) -> str:
    router = next(iter(found))
    return f"What {plain(router)} says is off by {percent(off(found[router]))} on average"


def _caption(report: Report, found: dict[str, list[ReliabilityBin]]) -> str:
    rows = report.prediction.get(OURS, {})
    pooled = rows.get(UNSEEN) or rows.get(ALL)
    chance = (
        ""
        if pooled is None
        else f" At this size even perfect probabilities of {OURS} would be off by {percent(pooled.ece_floor)}."
    )
    n = max(sum(one.n for one in tenths) for tenths in found.values())
    return (
        "Each point is a tenth of a router's predictions, by size: what it said on average, and the share that was right. On"
        " the diagonal the two agree; below it too much was promised. The rows of ticks show where the tenths lie, which is"
        f" where the predictions are, and how far each router is off on average. {n} outcomes, of models known by their"
        f" anchors only where there are such.{chance}"
    )


def _draw(figure: Figure, found: dict[str, list[ReliabilityBin]]) -> None:
    strip = 0.2 * len(found) + 0.2
    ax = axes(figure, 0.75, 2.5, 0.55 + strip + 0.25)
    rug = axes(figure, 0.75, 2.5, 0.55, figure.get_size_inches()[1] - 0.55 - strip - 0.55)
    for one in (ax, rug):
        one.set_xlim(0, 1)
        percent_axis(one.xaxis)
    percent_axis(ax.yaxis)
    ax.set_ylim(0, 1)
    ax.set_ylabel("right")
    ax.tick_params(labelbottom=False)
    ax.plot([0, 1], [0, 1], color=MUTED, lw=1.0, ls=(0, (4, 3)), zorder=2)
    ax.text(0.03, 0.06, "perfect", color=MUTED, fontsize=9, rotation=0, ha="left")
    rug.set_ylim(len(found) - 0.4, -0.6)
    rug.set_yticks([])
    rug.grid(visible=False)
    rug.spines["left"].set_visible(False)
    rug.set_xlabel("said")
    for rank, (router, tenths) in enumerate(found.items()):
        look = line_of(router)
        x, y = [one.predicted for one in tenths], [one.observed for one in tenths]
        ours = router == OURS
        style = (0, look.dashes) if look.dashes else "-"
        ax.plot(x, y, color=look.colour, lw=look.width * 0.8, ls=style, zorder=5 + 3 * ours - 0.01 * rank)
        ax.plot(x, y, "o", color=look.colour, ms=7 if ours else 4, mec=PAPER, mew=0.8, zorder=6 + 3 * ours)
        rug.plot([0, 1], [rank, rank], color=GRID, lw=0.8, zorder=1)
        rug.plot(x, [rank] * len(x), "|", color=look.colour, ms=9, mew=2.2, zorder=3)
        text = f"{plain(router)}, off by {percent(off(tenths))}"
        rug.text(1.03, rank, text, va="center", fontsize=9.5, fontweight="bold" if ours else "normal")
