"""The text and JSON that `scope-edge tune` prints: a table over alpha, and the result for the goal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from scope_edge.cli import format
from scope_edge.cli.output import one_line

if TYPE_CHECKING:
    from scope_edge.settings.config import Settings
    from scope_edge.tuning.forecast import Expected, Forecast
    from scope_edge.tuning.goals import SolvedGoal, TuningGoal, UnmetGoal
    from scope_edge.tuning.outlook import PoolForecast

    Saved = tuple[str, Path, Mapping[str, Any]]

# 90 % of normal errors are within this many standard errors, as in `route`.
_BAND = 1.645
_HINT = "--queries FILE uses yours"


def lines(
    outlook: PoolForecast,
    shown: Sequence[float],
    settings: Settings,
    asked: tuple[TuningGoal | None, SolvedGoal | None],
    saved: Saved | None,
) -> Iterator[str]:
    """Give all lines. asked: the goal and its solution."""
    name = f"pool {settings.pool}: " if "," not in settings.pool else ""
    yield f"{name}{format.plural(len(outlook.pool), 'model')}; {_traffic(outlook)}"
    yield from _warnings(outlook)
    yield ""
    yield from _table(outlook, shown)
    yield ""
    yield (
        "+-: a 90 % interval, given how well each model is known and how many queries these are; for queries of another kind"
        " the error can be larger."
    )
    goal, solved = asked
    if goal is not None and solved is not None:
        yield from _solution(outlook, goal, solved)
    if saved is not None:
        name, path, values = saved
        yield f"profile {one_line(name)} is in {path}: alpha {values['alpha']:g}; use it with `scope-edge route --profile {quote(name)}`"


def body(
    outlook: PoolForecast, shown: Sequence[float], settings: Settings, solved: SolvedGoal | None, saved: Saved | None
) -> dict[str, Any]:
    """Return the same as one JSON object (docs/json.md)."""
    traffic = outlook.traffic
    found: dict[str, Any] = {
        "pool": list(outlook.pool),
        "unmeasured": list(outlook.unmeasured),
        "queries": {
            "from": "file" if traffic.own else "bank",
            "n": len(traffic),
            "near": traffic.near,
            "more": traffic.more,
        },
        "alpha": settings.alpha,
        "alphas": [_row(row) for row in outlook.rows if row.alpha in shown],
        "alone": {model: _row(one) for model, one in outlook.alone.items()},
    }
    if solved is not None:
        lead = None if solved.lead is None else {"accuracy": solved.lead[0], "error": solved.lead[1]}
        found["goal"] = {
            "found": None if solved.found is None else _row(solved.found),
            "nearest": None if solved.nearest is None else _row(solved.nearest),
            "missed": [{"part": m.part, "wanted": m.wanted, "best": m.best, "alpha": m.at} for m in solved.missed],
            "lead": lead,
        }
    found["saved"] = None if saved is None else {"profile": saved[0], "file": str(saved[1]), "values": dict(saved[2])}
    return found


def _row(row: Expected) -> dict[str, Any]:
    return {
        **({"alpha": row.alpha} if hasattr(row, "alpha") else {}),
        "accuracy": row.accuracy if row.unserved < 1 else None,
        "accuracy_error": row.accuracy_error,
        "usd_per_1k": _thousand(row.usd),
        "usd_per_1k_error": _thousand(row.usd_error),
        "tokens": row.tokens,
        "device_share": row.device_share,
        "unserved": row.unserved,
        "portfolio": row.portfolio,
    }


def _thousand(value: float | None) -> float | None:
    return None if value is None else 1000 * value


def _traffic(outlook: PoolForecast) -> str:
    traffic = outlook.traffic
    if not traffic.own:
        return f"forecast for {len(traffic):,} queries of the bank, which are exam questions and puzzles ({_HINT})"
    first = "the first " if traffic.more else ""
    number = f"{len(traffic):,} of your queries" if len(traffic) > 1 else "your one query"
    return f"forecast for {first}{number}; {100 * (traffic.near or 0):.0f} % of them resemble measured ones"


def _warnings(outlook: PoolForecast) -> Iterator[str]:
    if outlook.unmeasured:
        yield click.style(f"left out, since not measured: {', '.join(outlook.unmeasured)}", dim=True)
    if outlook.traffic.own and (outlook.traffic.near or 0) < 0.5:
        yield click.style("most of them do not resemble measured queries: the numbers are a rough guide", dim=True)


def _table(outlook: PoolForecast, shown: Sequence[float]) -> Iterator[str]:
    """Give a row for each alpha, equal rows as one, and a row for the best model alone."""
    groups: list[tuple[list[float], list[str]]] = []
    for row in outlook.rows:
        if row.alpha in shown:
            cells = _cells(row)
            if groups and groups[-1][1] == cells:
                groups[-1][0].append(row.alpha)
            else:
                groups.append(([row.alpha], cells))
    rows: list[tuple[str, ...]] = [(_range(alphas), *cells) for alphas, cells in groups]
    best = max(outlook.alone, key=lambda model: outlook.alone[model].accuracy)
    rows.append(("alone", *_cells(outlook.alone[best])))
    titles = ["alpha", ">right %", ">$ per 1,000", ">tokens", ">device", ">unserved", "most often"]
    if not any(row.unserved for row in outlook.rows if row.alpha in shown):
        rows = [(*row[:5], *row[6:]) for row in rows]
        titles.remove(">unserved")
    yield from format.grid(titles, rows)


def _range(alphas: Sequence[float]) -> str:
    return f"{alphas[0]:g}" if len(alphas) == 1 else f"{alphas[0]:g} - {alphas[-1]:g}"


def _cells(row: Expected) -> list[str]:
    if row.unserved == 1:
        return ["", "", "", "", "100 %", "no model keeps to the limits"]
    most = max(row.portfolio, key=lambda model: row.portfolio[model])
    share = f" ({100 * row.portfolio[most]:.0f} %)" if row.portfolio[most] < 0.995 else ""
    return [
        _accuracy(row),
        _dollars(row),
        format.count(row.tokens),
        f"{100 * row.device_share:.0f} %",
        f"{100 * row.unserved:.0f} %",
        most + share,
    ]


def _accuracy(row: Expected) -> str:
    around = "" if row.accuracy_error is None else f" +-{100 * _BAND * row.accuracy_error:.1f}"
    return f"{100 * row.accuracy:.1f}{around}"


def _dollars(row: Expected) -> str:
    around = "" if not row.usd_error else f" +-{format.usd(1000 * _BAND * row.usd_error).removeprefix('$')}"
    return format.usd(_thousand(row.usd)) + around


def _solution(outlook: PoolForecast, goal: TuningGoal, solved: SolvedGoal) -> Iterator[str]:
    row = solved.found
    if row is not None:
        yield click.style(f"{_described(goal)}: alpha {row.alpha:g}", bold=True)
        yield f"  {_numbers(row)}"
        yield from _against(outlook, goal, solved)
        return
    yield click.style(f"{_described(goal)}: no alpha reaches that", bold=True)
    if all(one.unserved == 1 for one in outlook.rows):
        yield "  no model keeps to the limits of a single query, at any alpha"
        return
    for missed in solved.missed:
        yield f"  {_missed(missed)}"
    if not solved.missed and solved.nearest is not None:
        yield "  each part can be reached, but not all at once"
    if solved.nearest is not None:
        yield f"  nearest: alpha {solved.nearest.alpha:g}, {_numbers(solved.nearest)}"


def _described(goal: TuningGoal) -> str:
    parts = []
    if goal.match is not None:
        less = f" but for {format.plural(100 * goal.within, 'point')}" if goal.within else ""
        parts.append(f"right as often as {goal.match}{less}, at the least cost")
    if goal.usd is not None:
        parts.append(f"at most {_limit(1000 * goal.usd)} per 1,000 queries")
    if goal.tokens is not None:
        parts.append(f"at most {goal.tokens:g} tokens per query")
    return ", ".join(parts)


def _limit(dollars: float) -> str:
    return format.usd(dollars) if dollars else "$0"


def _numbers(row: Forecast) -> str:
    tokens = "" if row.tokens is None else f", {format.count(row.tokens)} tokens per query"
    cost = "free" if row.usd == 0 else f"{_dollars(row)} per 1,000 queries" if row.usd is not None else "cost unknown"
    left = f"; for {100 * row.unserved:.1f} % of queries no model keeps to the limits" if row.unserved else ""
    return f"{_accuracy(row)} % right, {cost}{tokens}, {100 * row.device_share:.0f} % on the device{left}"


def _against(outlook: PoolForecast, goal: TuningGoal, solved: SolvedGoal) -> Iterator[str]:
    if goal.match is None or solved.lead is None or solved.found is None:
        return
    other, (lead, error) = outlook.alone[goal.match], solved.lead
    around = "" if error is None else f" +-{100 * _BAND * error:.1f}"
    alone = f"{_accuracy(other)} % right, {_dollars(other)} per 1,000 queries"
    yield f"  {goal.match} alone: {alone}; the difference is {100 * lead:+.1f}{around} points"
    if other.usd and solved.found.usd is not None:
        yield f"  at {100 * solved.found.usd / other.usd:.0f} % of its cost"


def _missed(missed: UnmetGoal) -> str:
    at = "" if missed.at is None else f" (alpha {missed.at:g})"
    if missed.best is None:
        return "the cost is unknown at every alpha" if missed.part == "usd" else "the length of answers is unknown"
    if missed.part == "usd":
        return f"the lowest cost of this pool is {_limit(1000 * missed.best)} per 1,000 queries{at}"
    if missed.part == "tokens":
        return f"the fewest tokens this pool uses are {missed.best:.0f} per query{at}"
    return f"this pool is right on at most {100 * missed.best:.1f} %{at}; the goal is {100 * missed.wanted:.1f} %"
