"""Decisions made by hand, and the real executor on the real parts: endpoints on this machine, the user's journal and ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from chat_server import Server

from scope_edge.encoding.encoder import Encoder
from scope_edge.execution import Execution, Executor, Request
from scope_edge.execution.cloud import CloudProvider
from scope_edge.factory import open_journal, open_ledger
from scope_edge.fingerprinting.grading.agree import agree
from scope_edge.settings.config import load_settings
from scope_edge.types import BindingConstraint, Candidate, Decision, EstimatorReport, ModelCard, Query

QUESTION = "How many primes are there below one hundred?"


def card(model: str, server: Server, **fields: Any) -> ModelCard:
    """A model behind a server, which is priced at a dollar a thousand tokens, so that sums are easy to check."""
    given: dict[str, Any] = {"where": "cloud", "usd_in": 1000.0, "usd_out": 1000.0, "endpoint": server.address}
    return ModelCard(model, **{**given, **fields})


def candidate(card: ModelCard, p: float = 0.7, excluded_by: str | None = None) -> Candidate:
    return Candidate(
        model=card.id,
        where=card.where,
        p_correct=p,
        p_low=p - 0.1,
        p_high=p + 0.1,
        tokens=20.0,
        tokens_hi=40.0,
        prompt_tokens=20.0,
        usd=0.04,
        usd_hi=0.08,
        seconds=1.0,
        utility=p,
        evidence="strong",
        excluded_by=excluded_by,
        rationale=None,
    )


def decided(*candidates: Candidate, choice: str | None = None, over_budget: bool = False) -> Decision:
    """A decision for the first of the candidates, or the one named."""
    chosen = next((one for one in candidates if choice in (None, one.model)), None)
    return Decision(
        choice=None if chosen is None else chosen.model,
        where=None if chosen is None else chosen.where,
        alpha=0.5,
        policy="scope-edge",
        feasible=not over_budget,
        bound=BindingConstraint("max_usd", 0.0, 1.0) if over_budget else None,
        over_budget=over_budget,
        estimator=EstimatorReport("prior"),
        candidates=candidates,
        neighbors=(),
        flip_below=None,
        flip_above=None,
        truncated=False,
    )


@contextmanager
def executor(*cards: ModelCard, offline: bool = False, silence: float = 20.0, **settings: Any) -> Iterator[Executor]:
    """One over these models, under the user's settings and those given."""
    held = load_settings(settings)
    made = Executor(
        cards,
        device=None,
        cloud=CloudProvider(silence=silence, offline=offline),
        agree=partial(agree, encode=_encoder().encode),
        ledger=open_ledger(held),
        journal=open_journal(held),
    )
    try:
        yield made
    finally:
        made.close()


def asked(made: Executor, decision: Decision, **fields: Any) -> Execution:
    """The question asked under a decision; not begun."""
    return made.start(Request(query=Query(QUESTION), decision=decision, **fields))


def told(execution: Execution) -> str:
    """All that comes of it."""
    return "".join(piece.text for piece in execution)


_LOADED: list[Encoder] = []


def _encoder() -> Encoder:
    if not _LOADED:
        _LOADED.append(Encoder.load())
    return _LOADED[0]
