"""Colours: Okabe and Ito's, which the colour-blind can tell apart, one a router and the same in every picture."""

from __future__ import annotations

from dataclasses import dataclass

# index.html swaps these, and BLUE, for the reader's light or dark ones, so nothing else may have them, nor be blended with them.
INK, MUTED, GRID, PAPER, SOFT = "#1c1d22", "#62656e", "#dfe1e6", "#fefefe", "#eef0f4"

BLUE, VERMILLION, GREEN, SKY, PURPLE, ORANGE = "#0072b2", "#d55e00", "#009e73", "#56b4e9", "#cc79a7", "#e69f00"
OURS = "scope-edge"
# What is drawn against what came.
PREDICTED, OBSERVED = BLUE, VERMILLION


@dataclass(frozen=True, slots=True)
class Line:
    """How a router's line looks: colour, width in points, dashes (empty = solid)."""

    colour: str
    width: float
    dashes: tuple[float, ...] = ()


_LINES = {
    OURS: Line(BLUE, 2.8),
    "scope-paper": Line(VERMILLION, 1.8),
    "knn": Line(GREEN, 1.5),
    "knn5": Line(GREEN, 1.5, (1.2, 1.6)),
    "logreg": Line(PURPLE, 1.5),
    "svm": Line(PURPLE, 1.5, (4, 2)),
    "mlp": Line(ORANGE, 1.5),
    "gboost": Line(ORANGE, 1.5, (4, 2)),
}
_OTHERS = (Line(SKY, 1.5), Line(SKY, 1.5, (4, 2)), Line(SKY, 1.5, (1.2, 1.6)))

# Routers that look at no query, and the oracle: matplotlib's markers.
MARKERS = {"oracle": "*", "random": "X", "best-single": "D", "always-device": "s", "cheapest": "v", "dearest": "^"}


def line_of(router: str) -> Line:
    """A router's line; one that has none of its own always gets the same of the rest."""
    return _LINES.get(router) or _OTHERS[sum(router.encode("utf-8", "replace")) % len(_OTHERS)]


def ink_on(colour: str) -> str:
    """Black or white, whichever is easier to read on a colour #rrggbb (by the contrast of WCAG)."""
    linear = [_linear(int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5)]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (light + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"


def _linear(value: float) -> float:
    return float(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
