"""Real decisions to write down, and runs of them."""

from __future__ import annotations

from functools import cache
from typing import Any

from scope_edge.estimation import feedback_store
from scope_edge.factory import load_pipeline
from scope_edge.history import Journal
from scope_edge.settings.config import Settings
from scope_edge.types import Attempt, Decision, EncodedQuery, Query, Run

QUERY = "How many primes are there below one hundred?"
OTHER = "Translate 'good morning' into Danish."
FAR = "Write a short poem about the sea in winter."


@cache
def decided(text: str = QUERY) -> tuple[EncodedQuery, Decision]:
    """A query and what the bundled files alone decide on it, under the default settings."""
    assert not feedback_store.file().exists(), "decisions here are shared by tests: none of them may know of feedback"
    settings = Settings(pool="open-2024")
    with load_pipeline(settings) as flow:
        encoded = flow.encode(Query(text))
        return encoded, flow.decide(encoded, settings.preference())


def run_of(decision: Decision, **changes: Any) -> Run:
    """The chosen model answered, after another one did not."""
    assert decision.choice is not None
    fields: dict[str, Any] = {
        "model": decision.choice,
        "where": decision.where,
        "attempts": (Attempt("llama-3.1-405b-instruct", "cloud", "503 from the server; it was asked again 3 times"),),
        "prompt_tokens": 31.0,
        "completion_tokens": 120.0,
        "counted": "server",
        "usd": 0.000061,
        "first_token_seconds": 0.41,
        "seconds": 2.3,
        "ending": "complete",
    }
    return Run(**{**fields, **changes})


def recorded(journal: Journal, text: str = QUERY, **changes: Any) -> str:
    """The id of a new entry: a query, its decision, and the run of it."""
    encoded, decision = decided(text)
    id = journal.record(encoded.query, decision, run_of(decision, **changes), encoded=encoded)
    assert journal.problem is None and id
    return id
