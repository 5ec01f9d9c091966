"""Who is chosen: each model's share of the queries as alpha goes from the cheapest to the most accurate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scope_edge.evaluating.report import Report, RoutingPoint
from scope_edge.plotting.canvas import axes, percent_axis, ticks
from scope_edge.plotting.labels import spread
from scope_edge.plotting.names import distinct, dollars, percent
from scope_edge.plotting.palette import MUTED, OURS, PAPER
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
    large = [model for model in by_size[:_BANDS] if max(shares[model]) >= _SMALL]
    large.sort(key=lambda model: (costs.get(model) is None, costs.get(model) or 0.0, model))
    names = distinct(large, 24)
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
        f" 1,000 queries cost with that model alone. Alpha 0 is the cheapest choice, 1 the most accurate. {report.common}"
        f" outcomes. Models that never get {_SMALL:.0%} of the queries are together."
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
    from matplotlib import colormaps

    ax = axes(figure, 0.75, 2.6, 0.6)
    alphas = [_alpha(point) for point in points]
    ax.set_xlim(alphas[0], alphas[-1])
    ax.set_ylim(0, 1)
    ax.grid(visible=False)
    percent_axis(ax.yaxis)
    marked = alphas[:: max(1, len(alphas) // 10)]
    ticks(ax.xaxis, marked, [f"{alpha:g}" for alpha in marked])
    ax.set_xlabel("alpha: 0 = cheapest, 1 = most accurate")
    ax.set_ylabel("queries")
    low = [0.0] * len(alphas)
    outside = []
    for rank, band in enumerate(found):
        shade = 0.04 + 0.93 * rank / max(len(found) - 1, 1)
        top = [floor + share for floor, share in zip(low, band.shares, strict=True)]
        ax.fill_between(alphas, low, top, color=colormaps["cividis"](shade), linewidth=0)
        ax.plot(alphas, top, color=PAPER, lw=1.0)
        if not _inside(ax, band, alphas, low, "#ffffff" if shade < 0.55 else "#000000"):
            at = len(alphas) - 1
            if band.shares[at] < 0.005:
                at = max(range(len(alphas)), key=lambda i: band.shares[i])
            outside.append((_label(band), alphas[at], low[at] + band.shares[at] / 2))
        low = top
    _beside(ax, outside)


def _label(band: Band) -> str:
    return band.label if band.usd is None else f"{band.label}  {dollars(band.usd)}"


def _inside(ax: Axes, band: Band, alphas: Sequence[float], low: Sequence[float], colour: str) -> bool:
    """Write a band's name into it, where it has room for it."""
    half = _CHARACTER * len(_label(band)) * (alphas[-1] - alphas[0]) / 2
    best = (0.0, 0.0, 0.0)
    for centre in alphas:
        if centre - half < alphas[0] or centre + half > alphas[-1]:
            continue
        # The alphas the name spans, and one to each side, as bands are straight between alphas.
        step = (alphas[-1] - alphas[0]) / (len(alphas) - 1)
        under = [i for i, alpha in enumerate(alphas) if abs(alpha - centre) <= half + step]
        floor, roof = max(low[i] for i in under), min(low[i] + band.shares[i] for i in under)
        best = max(best, (roof - floor, centre, (roof + floor) / 2))
    if best[0] < _INSIDE:
        return False
    ax.text(best[1], best[2], _label(band), color=colour, fontsize=9.5, ha="center", va="center")
    return True


def _beside(ax: Axes, outside: Sequence[tuple[str, float, float]]) -> None:
    heights = spread([middle for _, _, middle in outside], 0.058, 0.02, 0.98)
    thin: dict[str, Any] = {"arrowstyle": "-", "color": MUTED, "lw": 0.7, "shrinkA": 2, "shrinkB": 0}
    for (label, alpha, middle), height in zip(outside, heights, strict=True):
        ax.annotate(
            label,
            (alpha, middle),
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=9.5,
            annotation_clip=False,
            arrowprops=thin,
        )
