"""Who is asked, in which order, and who never."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scope_edge.catalog.cards import is_retired
from scope_edge.errors import UsageError
from scope_edge.settings.validation import join_some

if TYPE_CHECKING:
    from scope_edge.execution.request import Request
    from scope_edge.types import Candidate, Decision, ModelCard, Preference


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


def fallback_order(request: Request, cards: Mapping[str, ModelCard]) -> tuple[Candidate, ...]:
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


# Who of a pool can be asked at all, and the words for those who cannot.

# A warning names this many models; a pool may have a thousand.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class CallableModels:
    """Who a decision may be made among. preference: with all others excluded. warnings: on those left out."""

    preference: Preference
    warnings: tuple[str, ...]

    def noted(self, decision: Decision) -> Decision:
        """A decision made so, with what was left out of it."""
        return replace(decision, warnings=(*decision.warnings, *self.warnings)) if self.warnings else decision


def callable_models(
    pool: Sequence[ModelCard],
    pinned: str | None,
    preference: Preference,
    needs: Iterable[str] = (),
    *,
    picked: bool = True,
) -> CallableModels:
    """The preference without those that cannot be called, or do not support what a request needs.

    pinned: this one alone; whoever names a model knows what it can do. needs: as in `ModelCard.supports`. picked: whether somebody
    chose this pool; of the default one, most can only be called once a user says how, which is no news.
    Raises UsageError: nobody is left.
    """
    cards = [card for card in pool if card.id not in preference.exclude]
    if pinned is not None:
        cards = [card for card in pool if card.id == pinned]
        if not cards:
            raise UsageError(f"{pinned} is not in this pool; name a pool it is in, or pool={pinned!r}")
    silent = [card.id for card in cards if not callable_now(card)]
    if cards and len(silent) == len(cards):
        if pinned is not None:
            raise UsageError(f"{pinned}: {why_not_called(cards[0], local_only=False)}")
        if any(callable_now(card) for card in pool):
            raise UsageError("every model of this pool that can be called is excluded; exclude fewer")
        raise UsageError(
            "no model of this pool can be called: their cards name no endpoint and no gguf;"
            " `scope-edge models add` makes cards that do"
        )
    wanted = () if pinned is not None else tuple(needs)
    unable = [card.id for card in cards if card.id not in silent and not set(wanted) <= set(card.supports)]
    if cards and len(silent) + len(unable) == len(cards):
        raise UsageError(
            f"no model of this pool is known to support {', '.join(wanted)}; where one does, say so on its card:"
            f" supports = [{', '.join(map(repr, wanted))}]".replace("'", '"')
        )
    left = {card.id for card in cards} - {*silent, *unable}
    excluded = tuple(card.id for card in pool if card.id not in left)
    kept = replace(preference, exclude=(*dict.fromkeys((*preference.exclude, *excluded)),))
    lost = silent if picked else [card.id for card in cards if card.id in silent and has_address(card)]
    return CallableModels(kept, tuple(_left_out(lost, unable, wanted)))


def _left_out(silent: Sequence[str], unable: Sequence[str], wanted: Sequence[str]) -> Iterable[str]:
    if silent:
        yield f"left out, since their cards do not say how they are called, or they are retired: {join_some(silent, _NAMED)}"
    if unable:
        yield f"left out, since their cards do not say that they support {', '.join(wanted)}: {join_some(unable, _NAMED)}"
