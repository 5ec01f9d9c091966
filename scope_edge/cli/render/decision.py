"""A decision as text: the choice, the reason, the candidates, the alphas that would change it, and with --explain more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import click

from scope_edge.cli import format
from scope_edge.cli.format import Column
from scope_edge.cli.output import one_line
from scope_edge.policy.infeasible import explain_infeasible
from scope_edge.types import BindingConstraint, Candidate, Decision

PLACES = {"device": "on the device", "cloud": "in the cloud"}
_EXCLUDED = {
    "exclude": "excluded",
    "reference": "reference",
    "needs": "unable",
    "model": "not asked",
    "local_only": "not local",
    "cannot_load": "cannot load",
    "context": "too long",
    "max_tokens": "over tokens",
    "max_usd": "over usd",
    "max_seconds": "over seconds",
}
# A pool may have a thousand models; the last ones are rarely of interest.
_ROWS = 20
_NARROWEST = 6
_SURELY_UNKNOWABLE = 0.5


def shown(decision: Decision, *, explain: bool, width: int, value_of_time: float, reference: bool = False) -> str:
    """Return the decision as text with colour codes, its lines at most `width` wide if possible.

    reference: whether no model of the pool can be called here.
    """
    lines = [*_headline(decision), "", *_candidates(decision, width, explain)]
    lines += ["", *_flips(decision)] if decision.feasible else []
    if explain:
        lines += ["", *_explanation(decision, value_of_time), "", *_neighbors(decision, width)]
    notices = list(_notices(decision))
    if reference:
        notices.append("These models are for reference: none can be called here yet; `scope-edge models add` adds one.")
    lines += ["", *notices] if notices else []
    return "\n".join(part for line in lines for part in format.wrapped(line, width))


def one_line_of(decision: Decision, model: str | None) -> str:
    """Return a decision in one line, for the reader of the answer: model, place, chance of being right, cost."""
    row = next((one for one in decision.candidates if one.model == model), None)
    if row is None:
        return model or "no model answers"
    parts = [f"{row.model}, {PLACES[row.where]}"]
    if row.p_correct is not None:
        parts.append(f"{format.percent(row.p_correct)}% likely to be right")
    parts.append(_price(row))
    instead = f" (chosen: {decision.choice})" if model != decision.choice else ""
    over = "; no model keeps to the limits" if decision.over_budget else ""
    return ", ".join(parts) + instead + over


def infeasible(bound: BindingConstraint | None) -> str:
    """Return one line on the limit that leaves no model, and the smallest value of it that suffices."""
    return explain_infeasible(bound, lambda name: f"--{name.replace('_', '-')}")


def _headline(decision: Decision) -> Iterator[str]:
    chosen = next((row for row in decision.candidates if row.model == decision.choice), None)
    if chosen is None:
        yield click.style("no choice", bold=True) + ": " + infeasible(decision.bound)
        return
    task = "" if decision.task is None else click.style(f"  [{decision.task}]", dim=True)
    yield click.style(chosen.model, fg="green", bold=True) + f", {PLACES[chosen.where]}{task}"
    if decision.over_budget:
        yield f"over the budget: {infeasible(decision.bound)}; this is the cheapest"
    yield _why(decision, chosen)


def _why(decision: Decision, chosen: Candidate) -> str:
    if decision.unknowable is not None and decision.unknowable >= _SURELY_UNKNOWABLE:
        share = format.percent(decision.unknowable)
        return f"Most likely no model can know the answer ({share}%); {_price(chosen)}."
    if chosen.p_correct is None:
        return f"How likely it is to be right is unknown; {_price(chosen)}."
    own = f"{format.percent(chosen.p_correct)}% likely to be right, {_price(chosen)}"
    rivals = [one for one in decision.candidates if one.excluded_by is None and one.p_correct is not None]
    best = max(rivals, key=lambda one: one.p_correct or 0.0, default=chosen)
    if best.model == chosen.model or (best.p_correct or 0.0) <= chosen.p_correct:
        unknown = any(one.p_correct is None for one in decision.candidates if one.excluded_by is None)
        barred = any((one.p_correct or 0.0) > chosen.p_correct for one in decision.candidates)
        others = "of known accuracy" if unknown else "that may be chosen" if barred else "in the pool"
        return f"{own}; no other model {others} is predicted to be more accurate."
    more = f"{own}; the most accurate, {best.model}, is at {format.percent(best.p_correct)}%"
    if best.usd is None or chosen.usd is None:
        return f"{more}, {_price(best)}."
    saved = best.usd - chosen.usd
    return f"{more} but costs {format.usd(saved)} more." if saved > 0 else f"{more}, {_price(best)}."


def _price(candidate: Candidate) -> str:
    if candidate.usd is None:
        return "at an unknown price" if candidate.tokens is not None else "at an unknown cost"
    if candidate.usd == 0:
        return "free"
    most = "" if candidate.usd_hi is None else f" (at most {format.usd(candidate.usd_hi)})"
    return f"for about {format.usd(candidate.usd)}{most}"


def _candidates(decision: Decision, width: int, explain: bool) -> Iterator[str]:
    rows = decision.candidates if explain else decision.candidates[:_ROWS]
    columns = next(
        columns
        for level in range(_NARROWEST + 1)
        if format.table_width(columns := _columns(rows, decision.choice, level, explain)) <= width
        or level == _NARROWEST
    )
    head, *lines = format.table(columns)
    yield click.style(head, dim=True)
    for row, line in zip(rows, lines, strict=True):
        if row.model == decision.choice:
            yield click.style(line, bold=True)
        else:
            yield click.style(line, dim=True) if row.excluded_by is not None else line
    left = len(decision.candidates) - len(rows)
    if left:
        yield f"  and {format.plural(left, 'more model')}; --explain shows all"


def _columns(rows: Sequence[Candidate], choice: str | None, level: int, explain: bool) -> list[Column]:
    """Return the table's columns; each level shows less than the one before."""
    timed = any(row.seconds is not None for row in rows)
    marks = [
        ("> " if row.model == choice else "  ") + format.clipped(row.model, 40 if level < 6 else 20) for row in rows
    ]
    columns = [Column("  model", marks)]
    if level < 2:
        columns.append(Column("where", [row.where for row in rows]))
    columns.append(Column("right %" + (" (90% band)" if level < 1 else ""), [_chance(row, level < 5) for row in rows]))
    columns.append(Column("tokens", [format.count(row.tokens) for row in rows], right=True))
    if level < 3:
        columns.append(Column("at most", [format.count(row.tokens_hi) for row in rows], right=True))
    columns.append(Column("cost", [format.usd(row.usd) for row in rows], right=True))
    if level < 4:
        columns.append(Column("at most", [format.usd(row.usd_hi) for row in rows], right=True))
    if timed:
        columns.append(Column("seconds", [format.seconds(row.seconds) for row in rows], right=True))
    if explain and level < 1:
        columns.append(Column("prompt", [format.count(row.prompt_tokens) for row in rows], right=True))
        columns.append(
            Column(
                "utility", [format.UNKNOWN if row.utility is None else f"{row.utility:.4g}" for row in rows], right=True
            )
        )
    columns.append(Column("evidence" if level < 2 else "", [_note(row) for row in rows]))
    return columns


def _chance(row: Candidate, band: bool) -> str:
    text = format.percent(row.p_correct).rjust(4)
    if not band or row.p_low is None or row.p_high is None:
        return text
    return f"{text} ({100 * row.p_low:.0f}-{100 * row.p_high:.0f})"


def _note(row: Candidate) -> str:
    if row.excluded_by is not None:
        return _EXCLUDED.get(row.excluded_by, row.excluded_by)
    return row.evidence


def _flips(decision: Decision) -> Iterator[str]:
    flips = [flip for flip in (decision.flip_below, decision.flip_above) if flip is not None]
    parts = [f"alpha {flip.alpha:g} would choose {flip.model}" for flip in flips]
    yield f"alpha {decision.alpha:g}; " + (", ".join(parts) or "no other alpha would change the choice")


def _explanation(decision: Decision, value_of_time: float) -> Iterator[str]:
    yield click.style("how it was chosen", bold=True)
    if decision.policy == "paper":
        yield "policy paper: U = alpha p + (1 - alpha) (1 - c)^gamma, blended with the outcomes on the nearest anchors"
    elif not decision.feasible:
        yield "policy scope-edge: no model keeps to the limits, so none was weighed"
    elif decision.alpha == 0:
        yield "policy scope-edge: at alpha 0 the cheapest wins; ties go to the one most likely to be right"
    else:
        yield "policy scope-edge: utility = p - lambda x cost; of the models within 0.005 and the toll of the best, the cheapest wins"
        yield from _exchange(decision, value_of_time)
    report = decision.estimator
    prompts = f", {format.plural(report.prompts_run, 'prompt')} run and {report.prompts_saved} saved"
    yield f"estimates: {one_line(report.name)}{prompts if report.prompts_run else ''}"
    if decision.timings_ms:
        yield "milliseconds: " + ", ".join(f"{step} {value:.3g}" for step, value in decision.timings_ms.items())
    for row in decision.candidates:
        if row.rationale:
            yield f"{row.model}: {one_line(row.rationale)}"


def _exchange(decision: Decision, value_of_time: float) -> Iterator[str]:
    """Give the value of a dollar at this alpha, computed from the dearest candidate, where rounding matters least."""
    priced = [
        (cost, row.p_correct - row.utility)
        for row in decision.candidates
        if (cost := _cost(row, value_of_time)) and row.p_correct is not None and row.utility is not None
    ]
    if not priced:
        return
    cost, difference = max(priced)
    lam = difference / cost
    if lam > 1e-9 and math.isfinite(lam):
        yield (
            f"at alpha {decision.alpha:g} lambda is {lam:.3g} per dollar: each {format.usd(0.01 / lam)} more per query must"
            " bring one point of accuracy"
        )
    else:
        yield f"at alpha {decision.alpha:g} lambda is 0: cost decides only between equals"


def _cost(row: Candidate, value_of_time: float) -> float | None:
    if row.usd is None or not value_of_time:
        return row.usd
    return None if row.seconds is None else row.usd + row.seconds * value_of_time


def _neighbors(decision: Decision, width: int) -> Iterator[str]:
    yield click.style("nearest anchors", bold=True)
    rows = decision.neighbors
    named = any(row.anchor for row in rows)  # an entry of the journal may lack the names
    yield from format.grid(
        (">  similarity", "category", "source", "anchor" if named else ""),
        [
            (
                f"{row.similarity:.3f}",
                format.clipped(one_line(row.category), 30),
                format.clipped(one_line(row.source), 20),
                format.clipped(one_line(row.anchor), max(width - 56, 20)),
            )
            for row in rows
        ],
    )


def _notices(decision: Decision) -> Iterator[str]:
    notices = [("truncated", "the query is longer than the encoder reads; its end was ignored")] * decision.truncated
    notices += [("degraded", one_line(text)) for text in decision.degraded]
    notices += [("warning", one_line(text)) for text in decision.warnings]
    for kind, text in notices:
        yield click.style(f"{kind}:", fg="magenta", bold=True) + f" {text}"
