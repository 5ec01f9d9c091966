"""Whose turn it is when device models do not all fit into memory at once. Pure: no clock, no threads, no processes.

- A model is loaded where it would go if it had the machine to itself. For that, models that nobody uses go, the least recently
  used first, and no more of them than it takes. One with running requests is never thrown out.
- Once loaded, a model keeps its place for `STAY` times as long as loading it took, asked or not: so that two models that do
  not fit together are not swapped for every request.
- After that, who came first is served first: a request that needs the place holds back later requests for the model in it, so
  the running ones finish and the place becomes free, however many keep asking. Those held back come next, by the same rule.
- A request behind it is loaded before it only where that takes nothing from it, neither now nor after its turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from scope_edge.providers.llama.memory import LoadPlan, Store

STAY = 2.0


@dataclass(slots=True, eq=False)
class LoadedModel:
    """A model's place in memory.

    Attributes:
        needs: bytes of `store`. state: "leaving" takes its bytes until it is gone.
        running: requests. stays: until when it is not thrown out for another. used: when it was last asked.
    """

    path: Path
    store: Store
    needs: int
    state: Literal["loading", "ready", "leaving"] = "loading"
    running: int = 0
    stays: float = 0.0
    used: float = 0.0

    def loaded(self, now: float, seconds: float) -> None:
        """It can be asked from now on; loading took so long."""
        self.state, self.used, self.stays = "ready", now, now + STAY * seconds


@dataclass(frozen=True, slots=True, eq=False)
class ModelRequest:
    """A request that waits for a model, by the id of its card."""

    path: Path
    card: str
    load_plan: LoadPlan


@dataclass(frozen=True, slots=True)
class Eviction:
    """A model to load now, and whom to throw out for it."""

    ask: ModelRequest
    leaving: tuple[LoadedModel, ...]


def may_start(
    place: LoadedModel, ask: ModelRequest, asks: Sequence[ModelRequest], places: Sequence[LoadedModel], now: float
) -> bool:
    """Whether a request may begin on a model that is ready. asks: all that wait, who came first first."""
    if place.state != "ready":
        return False
    if now < place.stays:
        return True
    earlier = asks[: asks.index(ask)]
    return not any(place in in_the_way(one, places, now) for one in _unplaced(earlier, places))


def next_load(asks: Sequence[ModelRequest], places: Sequence[LoadedModel], now: float) -> Eviction | None:
    """Whom to load now, if anybody."""
    earlier: list[ModelRequest] = []
    for ask in _unplaced(asks, places):
        leaving = in_the_way(ask, places, now)
        if not earlier and all(_may_go(place, now) for place in leaving) and _fits(ask, places, leaving):
            return Eviction(ask, leaving)
        if earlier and not leaving and _fits(ask, places, ()) and _fits_after(ask, earlier, places, now):
            return Eviction(ask, ())
        earlier.append(ask)
    return None


def in_the_way(ask: ModelRequest, places: Sequence[LoadedModel], now: float) -> tuple[LoadedModel, ...]:
    """Who has to go for a model: those who can at once first, then the least recently used, and nobody in vain."""
    store = [place for place in places if place.store == ask.load_plan.store]
    able = [place for place in store if place.state == "ready"]
    able.sort(key=lambda place: (place.running > 0, place.stays > now, place.used))
    over = (
        sum(place.needs for place in store if place.state != "leaving") + ask.load_plan.plan.needs - ask.load_plan.room
    )
    chosen: list[LoadedModel] = []
    for place in able:
        if over <= 0:
            break
        chosen.append(place)
        over -= place.needs
    for place in list(chosen):
        if over + place.needs <= 0:
            chosen.remove(place)
            over += place.needs
    return tuple(chosen)


def _unplaced(asks: Sequence[ModelRequest], places: Sequence[LoadedModel]) -> Iterator[ModelRequest]:
    """The first request for each model that has no place, or whose place is being cleared."""
    seen = {place.path for place in places if place.state != "leaving"}
    for ask in asks:
        if ask.path not in seen:
            seen.add(ask.path)
            yield ask


def _may_go(place: LoadedModel, now: float) -> bool:
    return not place.running and now >= place.stays


def _fits(ask: ModelRequest, places: Sequence[LoadedModel], leaving: Sequence[LoadedModel]) -> bool:
    """Whether there is room once those have left; others may still be leaving or loading. A lone model always fits."""
    taken = sum(place.needs for place in places if place.store == ask.load_plan.store and place not in leaving)
    return not taken or taken + ask.load_plan.plan.needs <= ask.load_plan.room


def _fits_after(ask: ModelRequest, earlier: Sequence[ModelRequest], places: Sequence[LoadedModel], now: float) -> bool:
    """Whether it also fits once all who came before have had their turn."""
    gone = {place for one in earlier for place in in_the_way(one, places, now)}
    store = ask.load_plan.store
    stay = sum(place.needs for place in places if place.store == store and place not in gone)
    come = sum(one.load_plan.plan.needs for one in earlier if one.load_plan.store == store)
    return stay + come + ask.load_plan.plan.needs <= ask.load_plan.room
