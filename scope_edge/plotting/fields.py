"""Ability by field: what each model got right in each category, and what was predicted of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scope_edge.evaluating.report import FieldScore, Report
from scope_edge.plotting.canvas import axes
from scope_edge.plotting.names import distinct
from scope_edge.plotting.palette import GRID, INK, MUTED, OURS, PAPER, SOFT, ink_on
from scope_edge.plotting.picture import Picture, nothing, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, TITLE = "fields", "Who is good at what"
_MODELS, _CATEGORIES = 28, 16
_CELL = (0.7, 0.36)
# Below so many outcomes a share is mostly luck.
FEW = 20

Cells = Mapping[tuple[str, str], FieldScore]


def fields(report: Report) -> Picture:
    """The picture of models by fields."""
    cells = {(one.model, one.category): one for one in report.fields if one.n}
    if not cells:
        return nothing(NAME, TITLE, "No outcome of any model in any field was scored.")
    models, categories = _models(report, cells), _categories(cells)

    def draw(figure: Figure) -> None:
        _draw(figure, models, categories, cells)

    size = (3.2 + _CELL[0] * max(len(categories), 5), 2.25 + _CELL[1] * len(models))
    gaps = sorted(abs(one.observed - one.predicted) for one in cells.values() if one.n >= FEW)
    headline = "Share right in %, and beside it what was predicted"
    if gaps:
        headline += f"; half of the cells differ by less than {100 * gaps[len(gaps) // 2]:.1f} points"
    return Picture(NAME, TITLE, headline, _caption(cells, models, categories), rows_of(report.fields), size, draw)


def _models(report: Report, cells: Cells) -> list[str]:
    """The pool first in what is shown, then those measured most; on top who is furthest above the others, field by field."""
    n: dict[str, int] = {}
    for (model, _), one in cells.items():
        n[model] = n.get(model, 0) + one.n
    chosen = sorted(n, key=lambda model: (model not in report.pool, -n[model], model))[:_MODELS]
    fields: dict[str, list[FieldScore]] = {}
    for one in cells.values():
        fields.setdefault(one.category, []).append(one)
    usual = {name: sum(one.observed for one in scores) / len(scores) for name, scores in fields.items()}
    # Not the plain mean: it would favour those that were spared the hard fields.
    above = dict.fromkeys(chosen, 0.0)
    for (model, category), one in cells.items():
        if model in above:
            above[model] += one.n * (one.observed - usual[category]) / n[model]
    return sorted(chosen, key=lambda model: (-above[model], model))


def _categories(cells: Cells) -> list[str]:
    n: dict[str, int] = {}
    for (_, category), one in cells.items():
        n[category] = n.get(category, 0) + one.n
    return sorted(n, key=lambda category: (-n[category], category))[:_CATEGORIES]


def _caption(cells: Cells, models: Sequence[str], categories: Sequence[str]) -> str:
    every, kinds = {model for model, _ in cells}, {category for _, category in cells}
    parts = [
        "In each cell the large figure is the share of answers that were right, the small one the mean of what"
        f" {OURS} predicted, in percent. On top who is furthest above the others in the"
        " same fields, largest fields to the left. Hatched: not measured, which is not 0."
        f" In brackets: fewer than {FEW} outcomes, mostly luck. Models that answered different queries of a field are not"
        " strictly comparable."
    ]
    if len(models) < len(every):
        parts.append(f"{len(models)} of {len(every)} models are shown, those of the pool first.")
    if len(categories) < len(kinds):
        parts.append(f"{len(categories)} of {len(kinds)} fields are shown, the largest.")
    return " ".join(parts)


def _draw(figure: Figure, models: Sequence[str], categories: Sequence[str], cells: Cells) -> None:
    width, _ = figure.get_size_inches()
    ax = axes(figure, 2.35, width - 2.35 - _CELL[0] * len(categories), 0.55, 1.1)
    ax.set_xlim(0, len(categories))
    ax.set_ylim(len(models), 0)
    ax.grid(visible=False)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(length=0)
    ax.xaxis.tick_top()
    labels = distinct(_without_set(categories), 20)
    ax.set_xticks(
        [i + 0.35 for i in range(len(categories))],
        list(labels.values()),
        rotation=35,
        ha="left",
        rotation_mode="anchor",
    )
    names = distinct(list(models), 27)
    ax.set_yticks([i + 0.5 for i in range(len(models))], [names[model] for model in models])
    for row, model in enumerate(models):
        for column, category in enumerate(categories):
            _cell(ax, row, column, cells.get((model, category)))
    _scale(figure, ax)


def _without_set(categories: Sequence[str]) -> list[str]:
    """Categories without the name of their set, where all are of one."""
    sets = {category.split("/")[0] for category in categories if "/" in category}
    if len(sets) == 1 and all("/" in category for category in categories):
        return [category.split("/", 1)[1] for category in categories]
    return list(categories)


def _cell(ax: Axes, row: int, column: int, one: FieldScore | None) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex
    from matplotlib.patches import Rectangle

    place = (column, row)
    if one is None:
        ax.add_patch(Rectangle(place, 1, 1, facecolor=SOFT, edgecolor=GRID, hatch="////", lw=0))
        ax.add_patch(Rectangle(place, 1, 1, facecolor="none", edgecolor=PAPER, lw=1.6))
        return
    shade = to_hex(colormaps["cividis"](one.observed))
    ax.add_patch(Rectangle(place, 1, 1, facecolor=shade, edgecolor=PAPER, lw=1.6))
    colour = ink_on(shade)
    text = f"{100 * one.observed:.0f}"
    ax.text(
        column + 0.38,
        row + 0.5,
        text if one.n >= FEW else f"({text})",
        ha="center",
        va="center",
        color=colour,
        fontsize=10.5,
        fontweight="bold" if one.n >= FEW else "normal",
    )
    ax.text(column + 0.78, row + 0.56, f"{100 * one.predicted:.0f}", ha="center", va="center", color=colour, fontsize=9)


def _scale(figure: Figure, ax: Axes) -> None:
    """What the colours mean, below."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    left = 2.35
    for step in range(40):
        corner = ((left + 0.04 * step) / width, 0.2 / height)
        colour = colormaps["cividis"](step / 39)
        figure.add_artist(
            Rectangle(corner, 0.042 / width, 0.14 / height, facecolor=colour, lw=0, transform=figure.transFigure)
        )
    how: dict[str, Any] = {"va": "center", "fontsize": 9, "color": INK}
    y = 0.265 / height
    figure.text((left - 0.06) / width, y, "none right", ha="right", **how)
    figure.text((left + 1.68) / width, y, "all right", ha="left", **how)
    corner = ((left + 2.55) / width, 0.2 / height)
    figure.add_artist(
        Rectangle(
            corner,
            0.3 / width,
            0.14 / height,
            facecolor=SOFT,
            edgecolor=MUTED,
            hatch="////",
            lw=0,
            transform=figure.transFigure,
        )
    )
    figure.text((left + 2.91) / width, y, "not measured", ha="left", **how)
