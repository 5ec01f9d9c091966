"""Evidence: are predictions that claim less worth less?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scope_edge.evaluating.report import EvidenceScore, Report
from scope_edge.plotting.canvas import panels, ticks
from scope_edge.plotting.names import plain
from scope_edge.plotting.palette import BLUE, MUTED
from scope_edge.plotting.picture import Picture, nothing, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, TITLE = "evidence", "What the word evidence is worth"


def evidence(report: Report) -> Picture:
    """The picture of errors by evidence word."""
    rows = [one for one in report.evidence if one.n]
    if not rows:
        return nothing(NAME, TITLE, "No prediction carried an evidence word.")

    def draw(figure: Figure) -> None:
        _draw(figure, rows)

    caption = (
        "Predictions by the evidence they claimed. Too hopeful: mean p minus the share right (negative: too modest)."
        " Calibration error: mean |mean p - share right| over fields. Excess log-loss: what was lost beyond what these p"
        " would lose if they were true. The smaller a group, the more of its error is chance."
    )
    size = (9.6, 1.75 + 0.42 * len(rows))
    return Picture(NAME, TITLE, _headline(rows), caption, rows_of(rows), size, draw)


def _headline(rows: Sequence[EvidenceScore]) -> str:
    first, last = rows[0], rows[-1]
    if len(rows) == 1:
        return f"All predictions claimed {plain(first.evidence)} evidence"
    return (
        f"Where evidence is {plain(first.evidence)}, p is off by {100 * first.calibration_error:.1f} points by field;"
        f" where it is {plain(last.evidence)}, by {100 * last.calibration_error:.1f}"
    )


def _draw(figure: Figure, rows: Sequence[EvidenceScore]) -> None:
    hope, error, loss = panels(figure, 3, 1.6, 0.35, 0.2, 0.35)
    _bars(hope, "too hopeful, points", [100 * one.signed_error for one in rows], "{:+.1f}")
    _bars(error, "calibration error, points", [100 * one.calibration_error for one in rows], "{:.1f}")
    _bars(loss, "excess log-loss", [one.excess_logloss for one in rows], "{:.3f}")
    ticks(hope.yaxis, range(len(rows)), [f"{plain(one.evidence)}\nn = {one.n:,}" for one in rows])


def _bars(ax: Axes, title: str, values: Sequence[float], form: str) -> None:
    ax.set_title(title, loc="left", fontsize=10)
    ax.grid(visible=False)
    ax.set_ylim(len(values) - 0.4, -0.6)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.tick_params(length=0)
    for side in ("bottom", "left"):
        ax.spines[side].set_visible(False)
    least, most = min(0.0, *values), max(0.0, *values)
    span = (most - least) or 1.0
    ax.set_xlim(least - (0.3 * span if least < 0 else 0), most + 0.3 * span)
    ax.barh(range(len(values)), values, height=0.5, color=BLUE)
    ax.axvline(0, color=MUTED, lw=0.8)
    for i, value in enumerate(values):
        side = "right" if value < 0 else "left"
        shift = (-4 if value < 0 else 4, 0)
        ax.annotate(
            form.format(value), (value, i), shift, textcoords="offset points", ha=side, va="center", fontsize=9.5
        )
