"""Who is asked, in which order, and who never."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from scope_edge.catalog import is_retired

if TYPE_CHECKING:
    from scope_edge.executor.request import Request
    from scope_edge.records import Candidate, ModelCard


def has_address(card: ModelCard) -> bool:
    """Whether a card says how its model is called."""
    return card.gguf is not None or card.endpoint is not None


def callable_now(card: ModelCard) -> bool:
    """Whether a card says how its model is called, and it still can be."""
    return has_address(card) and not is_retired(card)


def why_not_called(card: ModelCard | None, *, local_only: bool) -> str | None:
    """Why a model is not asked, whatever a decision says; None = nothing speaks against it."""
    if card is None:
        return "it has no card"
    if is_retired(card):
        return f"it is retired{f' since {card.retires}' if card.retires else ''}, so it is not called"
    if local_only and card.where != "device":
        return "it runs in the cloud, and only the device may be asked"
    if not has_address(card):
        return (
            f"its card does not say how it is called; `scope-edge models add` writes one that does, with --id {card.id}"
        )
    return None


def chain(request: Request, cards: Mapping[str, ModelCard]) -> tuple[Candidate, ...]:
    """Those who may be asked, best first: the choice, then the others that keep to the limits, in the policy's order.

    What a limit rules out is never among them, unless it was chosen all the same: a fallback over the budget.
    """
    decision = request.decision
    chosen = (one for one in decision.candidates if one.model == decision.choice)
    others = (one for one in decision.candidates if one.model != decision.choice and one.excluded_by is None)
    allowed: Iterable[Candidate] = (*chosen, *others)
    if request.local_only:
        allowed = (one for one in allowed if one.where == "device")
    return tuple(one for one in allowed if one.model in cards)


def better_elsewhere(candidates: Iterable[Candidate], doubted: Candidate) -> tuple[Candidate, ...]:
    """Those in the cloud that are likelier to be right than the one that contradicted itself, in the same order."""
    return tuple(
        one
        for one in candidates
        if one.where == "cloud" and (doubted.p_correct is None or (one.p_correct or 0.0) > doubted.p_correct)
    )
