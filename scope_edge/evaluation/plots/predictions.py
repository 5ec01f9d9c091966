"""Pictures of predictions: reliability (predicted against observed), and adaptation (scores by number of anchors)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from scope_edge.evaluation.plots import canvas
from scope_edge.evaluation.plots.canvas import BLUE, MUTED, OURS, PAPER, Picture
from scope_edge.evaluation.plots.names import percent, plain
from scope_edge.evaluation.report import ALL, UNSEEN, Adaptation, EvaluationReport, ReliabilityBin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RELIABILITY = "reliability", "Are the probabilities true?"
ADAPTATION = "adaptation", "How many anchors a new model needs"


def reliability(report: EvaluationReport) -> Picture:
    """Return the picture of predicted against observed."""
    found = routers(report)
    if not found:
        return canvas.nothing(*RELIABILITY, "There are no predictions to compare with outcomes.")
    first, tenths = next(iter(found.items()))
    headline = f"The probabilities of {plain(first)} are off by {100 * off(tenths):.1f} points on average"
    rows = canvas.rows_of(report.reliability)
    return Picture(
        *RELIABILITY, headline, _caption(report, found), rows, (9.0, 5.6), lambda figure: _draw(figure, found)
    )


def routers(report: EvaluationReport) -> dict[str, list[ReliabilityBin]]:
    """Return each router's tenths by rising p; scope-edge first, then the router with the smallest error."""
    found: dict[str, list[ReliabilityBin]] = {}
    for one in sorted(report.reliability, key=lambda one: one.predicted):
        if one.n:
            found.setdefault(one.router, []).append(one)
    return dict(sorted(found.items(), key=lambda pair: (pair[0] != OURS, off(pair[1]), pair[0])))


def off(tenths: Sequence[ReliabilityBin]) -> float:
    """Return the mean |mean p - share right| over outcomes: the expected calibration error."""
    return sum(one.n * abs(one.predicted - one.observed) for one in tenths) / sum(one.n for one in tenths)


def _caption(report: EvaluationReport, found: Mapping[str, Sequence[ReliabilityBin]]) -> str:
    rows = report.prediction.get(OURS, {})
    pooled = rows.get(UNSEEN) or rows.get(ALL)
    n = max(sum(one.n for one in tenths) for tenths in found.values())
    text = (
        "Each point is a tenth of a router's predictions, by size: the mean probability, and the share that was right. On"
        " the diagonal the two agree; below it the router promises too much. The figure next to a router is its mean error."
        f" {n:,} outcomes, only of models known by their anchors if there are any."
    )
    if pooled is None:
        return text
    floor = f"{100 * pooled.ece_floor:.1f}"
    return f"{text} With this many outcomes even perfect probabilities of {OURS} would be off by {floor} points."


def _draw(figure: Figure, found: Mapping[str, Sequence[ReliabilityBin]]) -> None:
    ax = figure.add_subplot(xlim=(0, 1), ylim=(0, 1), xlabel="predicted: mean p", title="observed: share right")
    canvas.percent_axis(ax.xaxis)
    canvas.percent_axis(ax.yaxis)
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1.0, linestyle="--", zorder=2)
    ax.text(0.03, 0.95, "too modest", color=MUTED, va="center")
    ax.text(0.97, 0.05, "too hopeful", color=MUTED, va="center", ha="right")
    for rank, (router, tenths) in enumerate(found.items()):
        x, y = [one.predicted for one in tenths], [one.observed for one in tenths]
        size = 7 if router == OURS else 4.5
        look = canvas.line_of(router) | {"marker": "o", "markersize": size, "mec": PAPER, "mew": 0.8}
        # Figure spaces, as wide as a digit, keep the column straight.
        label = f"{100 * off(tenths):4.1f}".replace(" ", "\u2007") + f"  {plain(router)}"
        ax.plot(x, y, label=label, zorder=5 + 3 * (router == OURS) - 0.01 * rank, clip_on=False, **look)
    canvas.legend(ax, "off by, points")


def adaptation(report: EvaluationReport) -> Picture:
    """Return the picture of scores against anchors."""
    steps = sorted(report.adaptation, key=lambda one: one.anchors)
    if not steps:
        return canvas.nothing(*ADAPTATION, "No model was scored with fewer anchors than it has.")
    new = sum(kind == "unseen" for kind in report.models.values())
    models = f"the {new} models that taught the bank nothing" if new else "all models (all of them taught the bank)"
    caption = (
        f"Mean over {models}: how well {plain(report.data)} is predicted for a model that has answered this many anchors."
        " AUC: the chance that a right answer was given the higher p than a wrong one, 0.5 is guessing. Verdict: the share"
        " of outcomes on whose side of 50 % p was. Log-loss: lower is better. The axes do not begin at 0, so that the steps"
        " can be seen."
    )
    first, last = steps[0], steps[-1]
    headline = f"With {first.anchors} anchors {percent(first.accuracy)} of the verdicts are right"
    if len(steps) > 1:
        shares = f"{percent(first.accuracy)} to {percent(last.accuracy)}"
        headline = f"From {first.anchors} to {last.anchors} anchors right verdicts go from {shares}"

    def draw(figure: Figure) -> None:
        auc, verdict, loss = figure.subplots(1, 3)
        _panel(auc, "AUC", steps, [one.auc for one in steps], "{:.3f}")
        _panel(verdict, "verdicts right", steps, [one.accuracy for one in steps], "{:.1%}")
        _panel(loss, "log-loss (lower is better)", steps, [one.logloss for one in steps], "{:.3f}")

    return Picture(*ADAPTATION, headline, caption, canvas.rows_of(steps), (9.6, 3.7), draw)


def _panel(ax: Axes, title: str, steps: Sequence[Adaptation], values: Sequence[float | None], form: str) -> None:
    """Draw one score; anchors evenly spaced, as each step is several times the one before."""
    ax.set_title(title, color=MUTED, pad=20)
    ax.set_xlim(-0.5, len(steps) - 0.5)
    canvas.ticks(ax.xaxis, range(len(steps)), [str(one.anchors) for one in steps])
    ax.set_xlabel("anchors")
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    known = [(i, value) for i, value in enumerate(values) if value is not None]
    if not known:
        ax.text(0.5, 0.5, "not known", transform=ax.transAxes, ha="center")
        return
    low, high = min(value for _, value in known), max(value for _, value in known)
    # At least a few points from bottom to top, or chance would look like progress.
    middle, reach = (low + high) / 2, max(0.7 * (high - low), 0.03)
    ax.set_ylim(middle - reach, middle + reach)
    ax.plot(*zip(*known, strict=True), "-o", color=BLUE, lw=2.2, ms=7, mec=PAPER, mew=1)
    for i, value in known:
        ax.text(i, 1.0, form.format(value), transform=ax.get_xaxis_transform(), ha="center", va="bottom")
