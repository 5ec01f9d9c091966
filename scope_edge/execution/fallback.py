"""Which models may be called, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scope_edge.catalog.cards import is_retired
from scope_edge.errors import UsageError
from scope_edge.settings.validation import join_some

if TYPE_CHECKING:
    from scope_edge.execution.request import Request
    from scope_edge.types import Candidate, Decision, LeftOut, ModelCard, Preference

# A warning names this many models; a pool may have a thousand.
_NAMED = 5


def callable_now(card: ModelCard) -> bool:
    """Return whether a card says how its model is called, and the model is not retired."""
    return _has_address(card) and not is_retired(card)


def reference_models(pool: Iterable[ModelCard]) -> tuple[str, ...]:
    """Return the models that cannot be called, so that they are in a pool for reference."""
    return tuple(card.id for card in pool if not callable_now(card))


def among_callable(pool: Sequence[ModelCard], preference: Preference) -> Preference:
    """Return the preference without reference models, unless the pool has no others."""
    silent = reference_models(pool)
    if len(silent) == len(pool):
        return preference
    return replace(preference, left_out=tuple((model, "reference") for model in silent))


def why_not_called(card: ModelCard, *, local_only: bool) -> str | None:
    """Return why a model is not called, whatever a decision says; None = it may be."""
    if is_retired(card):
        return f"it is retired{f' since {card.retires}' if card.retires else ''}, so it is not called"
    if local_only and card.where != "device":
        return "it runs in the cloud, and only models on the device may be called"
    if not _has_address(card):
        return (
            f"its card does not say how it is called; `scope-edge models add` writes one that does, with --id {card.id}"
        )
    return None


def fallback_order(request: Request, cards: Mapping[str, ModelCard]) -> tuple[Candidate, ...]:
    """Return the models that may be called: the choice, then the others within the limits, in the policy's order.

    A model outside the limits is only included if it was chosen all the same: a fallback over the budget.
    """
    decision = request.decision
    chosen = (one for one in decision.candidates if one.model == decision.choice)
    others = (one for one in decision.candidates if one.model != decision.choice and one.excluded_by is None)
    return tuple(
        one for one in (*chosen, *others) if one.model in cards and (one.where == "device" or not request.local_only)
    )


def better_elsewhere(candidate: Candidate, contradicted: Candidate) -> bool:
    """Return whether a model runs in the cloud and is likelier to be right than the one that contradicted itself."""
    least = contradicted.p_correct
    return candidate.where == "cloud" and (least is None or (candidate.p_correct or 0.0) > least)


@dataclass(frozen=True, slots=True)
class CallableModels:
    """The models that a decision may choose from. preference: leaves all others out. warnings: on those left out."""

    preference: Preference
    warnings: tuple[str, ...]

    def noted(self, decision: Decision) -> Decision:
        """Return a decision with these warnings added."""
        return replace(decision, warnings=(*decision.warnings, *self.warnings)) if self.warnings else decision


def callable_models(
    pool: Sequence[ModelCard],
    pinned: str | None,
    preference: Preference,
    needs: Iterable[str] = (),
    *,
    picked: bool = True,
) -> CallableModels:
    """Return the preference without models that cannot be called, or do not support what a request needs.

    pinned: this one alone; a caller that names a model knows what it can do. needs: as in `ModelCard.supports`. picked: whether
    the user chose this pool; most models of the default one can only be called once a user says how, which needs no warning.
    Raises UsageError: no model is left.
    """
    cards = [card for card in pool if card.id not in preference.exclude]
    if pinned is not None:
        cards = [card for card in pool if card.id == pinned]
        if not cards:
            raise UsageError(f"{pinned} is not in this pool; name a pool with this model, or pool={pinned!r}")
    silent = reference_models(cards)
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
    why: dict[str, LeftOut] = {card.id: "model" for card in pool if pinned not in (None, card.id)}
    why.update((model, "needs") for model in unable)
    why.update((model, "reference") for model in silent)
    kept = replace(preference, left_out=(*why.items(),))
    lost = silent if picked else [card.id for card in cards if card.id in silent and _has_address(card)]
    reasons = (
        (lost, "their cards do not say how they are called, or they are retired"),
        (unable, f"their cards do not say that they support {', '.join(wanted)}"),
    )
    return CallableModels(
        kept, tuple(f"left out, since {reason}: {join_some(models, _NAMED)}" for models, reason in reasons if models)
    )


def _has_address(card: ModelCard) -> bool:
    return card.gguf is not None or card.endpoint is not None
