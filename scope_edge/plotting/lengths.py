"""Lengths: the predicted median and upper bound against what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scope_edge.evaluating.report import ALL, UNSEEN, Length, Report
from scope_edge.plotting.canvas import axes, ticks
from scope_edge.plotting.names import percent
from scope_edge.plotting.palette import BLUE, GRID, MUTED, OURS, VERMILLION
from scope_edge.plotting.picture import Picture, nothing, rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME, TITLE = "lengths", "Do answers keep to their bound?"
# More bounds than these run into each other; the data have every length, and the shares are of all.
_DRAWN = 240


def lengths(report: Report) -> Picture:
    """The picture of a sample of lengths."""
    sample = [one for one in report.lengths if min(one.predicted, one.high, one.observed) > 0]
    if not sample:
        return nothing(NAME, TITLE, "No length was predicted, or none is known to compare with.")
    drawn = sample[:: -(-len(sample) // _DRAWN)]

    def draw(figure: Figure) -> None:
        _draw(figure, drawn)

    within = sum(one.observed <= one.high for one in sample) / len(sample)
    rows = report.prediction.get(OURS, {})
    pooled = rows.get(UNSEEN) or rows.get(ALL)
    whole = (
        ""
        if pooled is None or pooled.coverage is None
        else f" Of all {pooled.n:,} outcomes it is {percent(pooled.coverage)}."
    )
    caption = (
        f"Each column is one answer of a sample of {len(sample)}"
        + (f" (one in {-(-len(sample) // _DRAWN)} drawn)" if len(drawn) < len(sample) else "")
        + ", in tokens: across, the length that was predicted; up, from that median to the upper bound as"
        " a grey bar, and what came as a dot. On the diagonal the median was right. Both axes are logarithmic."
        f" {percent(within)} of the sample stay within their bound.{whole}"
    )
    headline = f"{percent(within)} of answers stay within the predicted upper bound"
    return Picture(NAME, TITLE, headline, caption, rows_of(report.lengths), (7.6, 5.6), draw)


def _draw(figure: Figure, drawn: Sequence[Length]) -> None:
    ax = axes(figure, 0.85, 0.3, 0.6)
    ax.set_xscale("log")
    ax.set_yscale("log")
    x = [one.predicted for one in drawn]
    high = [one.high for one in drawn]
    low, top = min(x) / 1.2, max(x) * 1.2
    ax.set_xlim(low, top)
    heights = [*x, *high, *(one.observed for one in drawn)]
    ax.set_ylim(min(heights) / 1.3, max(heights) * 1.5)
    ax.vlines(x, x, high, color=GRID, lw=2.2, zorder=2)
    ax.plot(x, high, "_", color=MUTED, ms=5, mew=1.0, zorder=3)
    ax.plot([low, top], [low, top], color=MUTED, lw=1.0, ls=(0, (4, 3)), zorder=3)
    dots: dict[str, Any] = {"ls": "none", "mew": 0.0, "alpha": 0.85}
    inside = [one for one in drawn if one.observed <= one.high]
    outside = [one for one in drawn if one.observed > one.high]
    ax.plot(
        [one.predicted for one in inside],
        [one.observed for one in inside],
        marker="o",
        ms=3.8,
        color=BLUE,
        zorder=4,
        **dots,
    )
    ax.plot(
        [one.predicted for one in outside],
        [one.observed for one in outside],
        marker="^",
        ms=6,
        color=VERMILLION,
        zorder=5,
        **dots,
    )
    for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        values = _round(*limits)
        ticks(axis, values, [f"{value:,.0f}" for value in values])
    ax.set_xlabel("predicted tokens (median)")
    ax.set_ylabel("tokens that came")
    ax.text(
        0.02, 0.97, "\u25b2 longer than the bound", transform=ax.transAxes, va="top", color=VERMILLION, fontsize=9.5
    )
    ax.text(0.02, 0.92, "\u25cf within it", transform=ax.transAxes, va="top", color=BLUE, fontsize=9.5)
    ax.text(
        0.02,
        0.87,
        "bar: from the predicted median (dashed) to the bound",
        transform=ax.transAxes,
        va="top",
        color=MUTED,
        fontsize=9.5,
    )


def _round(low: float, high: float) -> list[float]:
    """Round numbers of tokens from `low` to `high`, few enough to be read."""
    values: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        values = [step * 10.0**power for power in range(9) for step in steps]
        values = [value for value in values if low <= value <= high]
        if len(values) <= 8:
            break
    return values
