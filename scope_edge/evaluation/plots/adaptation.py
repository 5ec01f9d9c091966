"""Adaptation: how well a new model is predicted after so many anchors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scope_edge.evaluation.plots.canvas import BLUE, MUTED, PAPER, Picture, nothing, rows_of, ticks
from scope_edge.evaluation.plots.names import percent, plain
from scope_edge.evaluation.report import Adaptation, EvaluationReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME, TITLE = "adaptation", "How many anchors a new model needs"


def adaptation(report: EvaluationReport) -> Picture:
    """Return the picture of scores against anchors."""
    steps = sorted(report.adaptation, key=lambda one: one.anchors)
    if not steps:
        return nothing(NAME, TITLE, "No model was scored with fewer anchors than it has.")

    def draw(figure: Figure) -> None:
        _draw(figure, steps)

    new = sum(kind == "unseen" for kind in report.models.values())
    models = (
        f"the {new} models that taught the bank nothing" if new else "all models (none was kept from teaching the bank)"
    )
    caption = (
        f"Mean over {models}: how well {plain(report.data)} is predicted for a model that has answered so many anchors. AUC: the"
        " chance that a right answer was given the higher p than a wrong one, 0.5 is guessing. Verdict: the share of"
        " outcomes on whose side of 50 % p was. Log-loss: lower is better. The axes do not begin at 0, so that the steps"
        " can be seen."
    )
    return Picture(NAME, TITLE, _headline(steps), caption, rows_of(steps), (9.6, 3.7), draw)


def _headline(steps: Sequence[Adaptation]) -> str:
    first, last = steps[0], steps[-1]
    if len(steps) == 1:
        return f"With {first.anchors} anchors {percent(first.accuracy)} of the verdicts are right"
    return f"From {first.anchors} to {last.anchors} anchors right verdicts go from {percent(first.accuracy)} to {percent(last.accuracy)}"


def _draw(figure: Figure, steps: Sequence[Adaptation]) -> None:
    auc, verdict, loss = figure.subplots(1, 3)
    _panel(auc, "AUC", steps, [one.auc for one in steps], "{:.3f}")
    _panel(verdict, "verdicts right", steps, [one.accuracy for one in steps], "{:.1%}")
    _panel(loss, "log-loss (lower is better)", steps, [one.logloss for one in steps], "{:.3f}")


def _panel(ax: Axes, title: str, steps: Sequence[Adaptation], values: Sequence[float | None], form: str) -> None:
    """Draw one score; anchors evenly spaced, as each step is several times the one before."""
    ax.set_title(title, color=MUTED, pad=20)
    ax.set_xlim(-0.5, len(steps) - 0.5)
    ticks(ax.xaxis, range(len(steps)), [str(one.anchors) for one in steps])
    ax.set_xlabel("anchors")
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    known = [(i, value) for i, value in enumerate(values) if value is not None]
    if not known:
        ax.text(0.5, 0.5, "not known", transform=ax.transAxes, ha="center")
        return
    low, high = min(value for _, value in known), max(value for _, value in known)
    # Not less than a few points from bottom to top, or chance would look like progress.
    middle, reach = (low + high) / 2, max(0.7 * (high - low), 0.03)
    ax.set_ylim(middle - reach, middle + reach)
    ax.plot(*zip(*known, strict=True), "-o", color=BLUE, lw=2.2, ms=7, mec=PAPER, mew=1)
    for i, value in known:
        ax.text(i, 1.0, form.format(value), transform=ax.get_xaxis_transform(), ha="center", va="bottom")
