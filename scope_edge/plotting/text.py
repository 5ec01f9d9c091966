"""An evaluation as lines for a terminal: who is chosen, and are the probabilities true; text_curve.py has the curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scope_edge.evaluating.report import Report, RoutingPoint
from scope_edge.plotting.names import distinct, dollars, percent, plain
from scope_edge.plotting.palette import OURS
from scope_edge.plotting.portfolio import ours
from scope_edge.plotting.reliability import off, routers
from scope_edge.plotting.text_curve import NARROWEST, OTHER, UNICODE, Marks, curve_lines, folded, letters

_STEPS = 11


def text_lines(report: Report, width: int = 80, marks: Marks = UNICODE) -> list[str]:
    """Curve, portfolio and reliability, at most `width` columns wide, at least 50. Marks are UNICODE or ASCII."""
    costs = {point.router: point.usd_per_1k for point in report.singles}
    return [
        *curve_lines(report, width, marks),
        "",
        *portfolio_lines(ours(report), costs, width),
        "",
        *reliability_lines(report, width, marks),
    ]


def portfolio_lines(points: Sequence[RoutingPoint], costs: Mapping[str, float | None], width: int = 80) -> list[str]:
    """What each alpha is worth, and a bar of letters: who is chosen how often, cheapest first.

    Args:
        points: one router's, by rising alpha; at most 11 of them are shown.
        costs: model -> US dollars per 1,000 queries with it alone; None = not known.
    """
    if not points:
        return folded(f"Who is chosen at which alpha: not known, as choices of {OURS} were not replayed.", width)
    models = {model for point in points for model in point.portfolio}
    signs = letters(points, {**dict.fromkeys(models), **costs})
    room = max(width, NARROWEST) - 36
    every = max(1, -(-(len(points) - 1) // (_STEPS - 1)))
    lines = ["alpha   right  $ per 1,000  device  who is chosen"]
    for point in points[::every]:
        alpha = "-" if point.alpha is None else f"{point.alpha:.3g}"
        figures = f"{alpha:>5}{percent(point.accuracy):>8}{dollars(point.usd_per_1k):>13}{point.device_share:>8.0%}"
        lines.append(f"{figures}  {_bar(point.portfolio, signs, room)}".rstrip())
    lettered = sorted((model for model in models if signs[model] != OTHER), key=signs.__getitem__)
    names = distinct(lettered, 28)
    key = [f"{signs[model]}={names[model]}" for model in lettered]
    left = len(models) - len(lettered)
    return [*lines, *folded("  ".join([*key, *([f"{OTHER}={left} others"] if left else [])]), width)]


def _bar(portfolio: Mapping[str, float], signs: Mapping[str, str], room: int) -> str:
    """Letters in the shares of a portfolio, rounded so that they fill the room: who has most left over gets the next."""
    order = sorted(
        (model for model in portfolio if portfolio[model] > 0),
        key=lambda model: (signs[model] == OTHER, signs[model], model),
    )
    whole = sum(portfolio[model] for model in order) or 1.0
    exact = {model: room * portfolio[model] / whole for model in order}
    cells = {model: int(exact[model]) for model in order}
    for model in sorted(order, key=lambda model: cells[model] - exact[model])[: room - sum(cells.values())]:
        cells[model] += 1
    return "".join(signs[model] * cells[model] for model in order)


def reliability_lines(report: Report, width: int = 80, marks: Marks = UNICODE) -> list[str]:
    """Said against came, a tenth of scope-edge's predictions a line; how far the other routers are off, below."""
    found = routers(report)
    if not found:
        return folded("Are the probabilities true? Not known, as nothing was predicted.", width)
    router, tenths = next(iter(found.items()))
    room = max(width, NARROWEST) - 28
    head = f"{plain(router)} is off by {100 * off(tenths):.1f} points on average"
    lines = [*folded(head, width), f"   said    came  outcomes  bar: came; {marks.said}: said"]
    for one in tenths:
        bar = list((marks.bar * round(one.observed * room)).ljust(room))
        bar[min(int(one.predicted * room), room - 1)] = marks.said
        figures = f"{percent(one.predicted):>7}{percent(one.observed):>8}{one.n:>10,}"
        lines.append(f"{figures}  {''.join(bar)}".rstrip())
    others = ", ".join(f"{plain(name)} {100 * off(bins):.1f}" for name, bins in found.items() if name != router)
    return [*lines, *folded(f"others are off by: {others}", width)] if others else lines
