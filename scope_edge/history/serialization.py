"""Decisions and runs as JSON in the journal.

Unless embeddings are kept, the nearest anchors lose their names: ten of them nearly give the embedding away. Unless texts are
kept, a language model's sentences about the query are left out, and quotations of it in a server's errors. Numbers have three
digits, as many as are ever shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from scope_edge.errors import AssetError
from scope_edge.types import (
    AlphaSwitch,
    Attempt,
    BindingConstraint,
    Candidate,
    Decision,
    EstimatorReport,
    Neighbor,
    Run,
    run_body,
)

_DIGITS = 3
_ROUNDED = ("p_correct", "p_low", "p_high", "tokens", "tokens_hi", "prompt_tokens", "usd", "usd_hi", "seconds")
_LONGEST_ERROR = 300
# So many shared characters in a row are a quotation.
_QUOTED = 16
# A shorter query is a part of many words.
_LEAST = 4
_MARK = "[...]"


def decision_text(decision: Decision, *, with_text: bool, with_embedding: bool) -> str:
    """Return a decision as JSON."""
    body = decision.as_dict()
    body["candidates"] = [_candidate(one, with_text) for one in body["candidates"]]
    if not with_embedding:
        for neighbor in body["neighbors"]:
            neighbor |= {"anchor": "", "similarity": round(neighbor["similarity"], 2)}
    return json.dumps(body, separators=(",", ":"))


def read_decision(text: str, where: str) -> Decision:
    """Read a decision from the JSON of `decision_text`. Raises AssetError naming `where`."""
    try:
        body: dict[str, Any] = json.loads(text)
        flips, bound = body.pop("flip_alpha"), body.pop("bound")
        return Decision(
            query_id=body.pop("id", None),
            bound=bound and BindingConstraint(**bound),
            estimator=EstimatorReport(**body.pop("estimator")),
            candidates=tuple(Candidate(**one) for one in body.pop("candidates")),
            neighbors=tuple(Neighbor(**one) for one in body.pop("neighbors")),
            flip_below=flips["below"] and AlphaSwitch(**flips["below"]),
            flip_above=flips["above"] and AlphaSwitch(**flips["above"]),
            degraded=tuple(body.pop("degraded")),
            warnings=tuple(body.pop("warnings")),
            **body,
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(where, error) from error


def run_text(run: Run, query: str, *, with_text: bool) -> str:
    """Return a run as JSON. query: removed from its errors, unless texts are kept."""
    body = run_body(run)
    for attempt in body["attempts"]:
        message = attempt["error"][:_LONGEST_ERROR]
        attempt["error"] = message if with_text else without(query, message)
    return json.dumps(body, separators=(",", ":"))


def read_run(text: str | None, where: str) -> Run | None:
    """Read a run from the JSON of `run_text`; None stays None. Raises AssetError naming `where`."""
    if text is None:
        return None
    try:
        body: dict[str, Any] = json.loads(text)
        return Run(attempts=tuple(Attempt(**one) for one in body.pop("attempts")), **body)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(where, error) from error


def without(query: str, message: str) -> str:
    """Return a message without its quotations of a query."""
    width = min(_QUOTED, len(query))
    if width < _LEAST:
        return message
    quoted = [False] * len(message)
    for start in range(len(message) - width + 1):
        if message[start : start + width] in query:
            quoted[start : start + width] = [True] * width
    kept = "".join("\0" if hidden else char for char, hidden in zip(message, quoted, strict=True))
    return re.sub("\0+", _MARK, kept)


def _candidate(body: Mapping[str, Any], with_text: bool) -> dict[str, Any]:
    found = {**body, **{name: _rounded(body[name]) for name in _ROUNDED}}
    if body["utility"] is not None and body["p_correct"] is not None:
        # The difference to p is rounded: between two rounded numbers it would be lost.
        found["utility"] = found["p_correct"] - (_rounded(body["p_correct"] - body["utility"]) or 0.0)
    if not with_text:
        found["rationale"] = None
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def _damaged(where: str, error: Exception) -> AssetError:
    return AssetError(f"{where}: cannot be read ({error!r}); `scope-edge log purge` takes it away")
