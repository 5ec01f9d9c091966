"""Who of a pool can be asked at all, and the words for those who cannot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scope_edge.checks import join_some
from scope_edge.errors import UsageError
from scope_edge.executor.chain import callable_now, has_address, why_not_called

if TYPE_CHECKING:
    from scope_edge.records import Decision, ModelCard, Preference

# A warning names this many models; a pool may have a thousand.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Askable:
    """Who a decision may be made among. preference: with all others excluded. warnings: on those left out."""

    preference: Preference
    warnings: tuple[str, ...]

    def noted(self, decision: Decision) -> Decision:
        """A decision made so, with what was left out of it."""
        return replace(decision, warnings=(*decision.warnings, *self.warnings)) if self.warnings else decision


def askable(
    pool: Sequence[ModelCard],
    pinned: str | None,
    preference: Preference,
    needs: Iterable[str] = (),
    *,
    picked: bool = True,
) -> Askable:
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
    return Askable(kept, tuple(_left_out(lost, unable, wanted)))


def _left_out(silent: Sequence[str], unable: Sequence[str], wanted: Sequence[str]) -> Iterable[str]:
    if silent:
        yield f"left out, since their cards do not say how they are called, or they are retired: {join_some(silent, _NAMED)}"
    if unable:
        yield f"left out, since their cards do not say that they support {', '.join(wanted)}: {join_some(unable, _NAMED)}"
