"""Who is chosen: each model's share of the queries as alpha goes from the cheapest to the most accurate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scope_edge.evaluating.report import Report, RoutingPoint
from scope_edge.plotting.canvas import axes, percent_axis, ticks
from scope_edge.plotting.names import distinct, dollars, percent
from scope_edge.plotting.palette import MUTED, OURS, PAPER, ink_on
from scope_edge.plotting.picture import Picture, nothing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, TITLE = "portfolio", "Who is chosen at which alpha"
_SIZE = (9.6, 4.9)
# A model that nowhere gets this share goes with the others.
_SMALL = 0.02
_BANDS = 12
# Of a band that is labelled inside: its least height there, and the width of a character, as shares of the axes.
_INSIDE, _CHARACTER = 0.055, 0.0118


@dataclass(frozen=True, slots=True)
class Band:
    """One model, or the others together: name as shown, its share at every alpha, its cost alone."""

    label: str
    shares: tuple[float, ...]
    usd: float | None


def ours(report: Report) -> list[RoutingPoint]:
    """What scope-edge chose, by rising alpha."""
    return sorted((one for one in report.routing if one.router == OURS and one.alpha is not None), key=_alpha)


def bands(report: Report) -> list[Band]:
    """The portfolio from the cheapest model to the dearest; of an unknown cost after those, the small ones last."""
    points = ours(report)
    costs = {one.router: one.usd_per_1k for one in report.singles}
    models = list(dict.fromkeys(model for point in points for model in point.portfolio))
    shares = {model: tuple(point.portfolio.get(model, 0.0) for point in points) for model in models}
    by_size = sorted(models, key=lambda model: (-max(shares[model]), model))
    kept = sum(max(shares[model]) >= _SMALL for model in by_size[:_BANDS])
    large = by_size if kept >= len(by_size) - 1 else by_size[:kept]
    large.sort(key=lambda model: (costs.get(model) is None, costs.get(model) or 0.0, model))
    names = distinct(large, 26)
    found = [Band(names[model], shares[model], costs.get(model)) for model in large]
    rest = [shares[model] for model in models if model not in names]
    if rest:
        found.append(Band(f"{len(rest)} others", tuple(map(sum, zip(*rest, strict=True))), None))
    return found


def portfolio(report: Report) -> Picture:
    """The picture of what scope-edge chose."""
    points = ours(report)
    rows = tuple(
        {"alpha": p.alpha, "model": model, "share": share} for p in points for model, share in p.portfolio.items()
    )
    if len(points) < 2 or not rows:
        why = f"Choices of {OURS} were replayed at fewer than two alphas."
        return nothing(NAME, TITLE, why, rows)
    found = bands(report)

    def draw(figure: Figure) -> None:
        _draw(figure, points, found)

    caption = (
        f"Share of queries that {OURS} sends to each model, cheapest at the bottom, dearest on top; beside its name what"
        f" 1,000 queries cost with that model alone. Alpha 0 is the cheapest choice, 1 the most accurate. {report.common:,}"
        f" queries. Models that never get {_SMALL:.0%} of the queries are together."
    )
    return Picture(NAME, TITLE, _headline(points), caption, rows, _SIZE, draw)


def _alpha(point: RoutingPoint) -> float:
    return point.alpha or 0.0


def _headline(points: Sequence[RoutingPoint]) -> str:
    first, last = points[0], points[-1]
    parts = [
        f"alpha {_alpha(one):g}: {percent(one.accuracy)} right for {dollars(one.usd_per_1k)}, {one.device_share:.0%} on the device"
        for one in (first, last)
    ]
    return f"At {parts[0]}; at {parts[1]}"


def _draw(figure: Figure, points: Sequence[RoutingPoint], found: Sequence[Band]) -> None:
    ax = axes(figure, 0.65, 3.0, 0.6, 0.3)
    alphas = [_alpha(point) for point in points]
    ax.set_xlim(alphas[0], alphas[-1])
    ax.set_ylim(0, 1)
    ax.grid(visible=False)
    percent_axis(ax.yaxis)
    marked = alphas[:: max(1, len(alphas) // 10)]
    ticks(ax.xaxis, marked, [f"{alpha:g}" for alpha in marked])
    ax.set_xlabel("alpha: 0 = cheapest, 1 = most accurate")
    ax.set_title("share of queries", loc="left", fontsize=10)
    low = [0.0] * len(alphas)
    for band, colour in zip(found, _colours(found), strict=True):
        top = [floor + share for floor, share in zip(low, band.shares, strict=True)]
        ax.fill_between(alphas, low, top, color=colour, linewidth=0)
        ax.plot(alphas, top, color=PAPER, lw=1.0)
        _inside(ax, band, alphas, (low, top), colour)
        low = top
    _key(figure, found)


def _colours(found: Sequence[Band]) -> list[str]:
    """From dark and cheap to light and dear; those whose cost is not known, grey."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    priced = sum(band.usd is not None for band in found)
    shades = [to_hex(colormaps["viridis"](0.95 * i / max(priced - 1, 1))) for i in range(priced)]
    greys = [f"#{value:02x}{value:02x}{value:02x}" for value in (0x90, 0xA6, 0xBA, 0xCC)]
    return shades + [greys[i % len(greys)] for i in range(len(found) - priced)]


def _inside(
    ax: Axes, band: Band, alphas: Sequence[float], edges: tuple[Sequence[float], Sequence[float]], colour: str
) -> None:
    """Write a band's name into it where it has the most room, if that is enough."""
    import numpy as np

    span = alphas[-1] - alphas[0]
    half = _CHARACTER * (len(band.label) + 1) * span / 2
    best = (0.0, 0.0, 0.0)
    for centre in np.linspace(alphas[0] + half, alphas[-1] - half, 60).tolist():
        under = np.linspace(centre - half, centre + half, 30)
        floor = float(np.interp(under, alphas, edges[0]).max())
        roof = float(np.interp(under, alphas, edges[1]).min())
        best = max(best, (roof - floor, centre, (roof + floor) / 2))
    if half < span / 2 and best[0] >= _INSIDE:
        _, x, y = best
        ax.text(x, y, band.label, color=ink_on(colour), fontsize=9.5, ha="center", va="center")


def _key(figure: Figure, found: Sequence[Band]) -> None:
    """Names and costs beside the axes, in the order of the bands."""
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    left, top = width - 2.8, height - 1.0
    how: dict[str, Any] = {"va": "center", "fontsize": 9.5}
    figure.text(
        (width - 0.2) / width, top / height, "$ per 1,000 alone", ha="right", color=MUTED, va="center", fontsize=9
    )
    step = min(0.27, (top - 0.7) / len(found))
    rows = list(zip(found, _colours(found), strict=True))[::-1]
    for rank, (band, colour) in enumerate(rows):
        y = (top - 0.3 - step * rank) / height
        corner = (left / width, y - 0.075 / height)
        box = Rectangle(corner, 0.2 / width, 0.15 / height, facecolor=colour, lw=0, transform=figure.transFigure)
        figure.add_artist(box)
        figure.text((left + 0.28) / width, y, band.label, **how)
        if band.usd is not None:
            figure.text((width - 0.2) / width, y, dollars(band.usd), ha="right", **how)
