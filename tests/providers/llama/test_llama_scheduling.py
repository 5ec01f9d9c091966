"""Which is loaded when not all fit: the rules of model_manager.py, one by one, with no clock and no process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from scope_edge.providers.llama.memory import LoadPlan, Plan, Store
from scope_edge.providers.llama.model_manager import STAY, LoadedModel, ModelRequest, in_the_way, may_start, next_load


def ask(name: str, needs: int, room: int = 10, store: Store = "memory") -> ModelRequest:
    return ModelRequest(Path(name), name, LoadPlan(Plan(4096, 128, 0, 1, needs, ""), store, room))


def place(name: str, needs: int, running: int = 0, stays: float = 0.0, used: float = 0.0) -> LoadedModel:
    return LoadedModel(Path(name), "memory", needs, "ready", running, stays, used)


def test_what_fits_beside_the_others_is_loaded_at_once() -> None:
    turn = next_load([ask("b", 4)], [place("a", 6, running=3, stays=99)], now=0)
    assert turn is not None and turn.evicted == ()


def test_the_least_recently_used_goes_and_no_more_than_it_takes() -> None:
    places = [place("new", 3, used=3), place("old", 3, used=1), place("middle", 3, used=2)]
    turn = next_load([ask("b", 4)], places, now=5)
    assert turn is not None and [one.path.name for one in turn.evicted] == ["old"]
    turn = next_load([ask("b", 7)], places, now=5)
    assert turn is not None and [one.path.name for one in turn.evicted] == ["old", "middle"]


def test_nobody_goes_in_vain() -> None:
    places = [place("small", 1, used=1), place("large", 8, used=2)]
    turn = next_load([ask("b", 7)], places, now=5)
    assert turn is not None and [one.path.name for one in turn.evicted] == ["large"]


def test_one_with_running_requests_never_goes_and_idle_ones_go_first() -> None:
    busy = place("busy", 6, running=1)
    assert next_load([ask("b", 6)], [busy], now=1e9) is None
    turn = next_load([ask("b", 4)], [busy, place("idle", 4, used=99)], now=100)
    assert turn is not None and [one.path.name for one in turn.evicted] == ["idle"]


def test_one_that_was_just_loaded_stays_a_while_even_unused() -> None:
    fresh = place("fresh", 6)
    fresh.loaded(now=100, seconds=5)
    assert next_load([ask("b", 6)], [fresh], now=100 + 5 * STAY - 0.1) is None
    assert next_load([ask("b", 6)], [fresh], now=100 + 5 * STAY) is not None


def test_who_came_first_holds_back_those_who_would_keep_the_place_busy() -> None:
    busy = place("a", 6, running=1, stays=50)
    first, second = ask("b", 6), ask("a", 6)
    assert may_start(busy, second, [first, second], [busy], now=49), "it stays for now, so it may as well be used"
    assert not may_start(busy, second, [first, second], [busy], now=50)
    assert may_start(busy, second, [second, first], [busy], now=50)
    other, third = place("c", 4), ask("c", 4)
    assert may_start(other, third, [first, third], [busy, other], now=50), "it is in nobody's way"


def test_who_comes_later_is_loaded_before_only_when_that_takes_nothing_from_the_first() -> None:
    busy = place("a", 6, running=1)
    first = ask("b", 6)
    small, large = ask("s", 3), ask("l", 5)
    turn = next_load([first, small], [busy], now=1)
    assert turn is not None and turn.request is small and turn.evicted == ()
    assert next_load([first, large], [place("a", 5, running=1)], now=1) is None, "b and l do not fit together"


def test_what_is_leaving_still_takes_its_bytes() -> None:
    going = place("a", 6)
    going.state = "leaving"
    assert next_load([ask("b", 6)], [going], now=1) is None
    assert next_load([ask("a", 6)], [going], now=1) is None
    assert next_load([ask("a", 6)], [], now=1) is not None


def test_stores_do_not_mind_each_other() -> None:
    busy = place("a", 10, running=1, stays=99)
    turn = next_load([ask("b", 10, store="gpu")], [busy], now=1)
    assert turn is not None and turn.evicted == ()


@dataclass
class World:
    """Requests to models over simulated time: each load takes 1, each answer `length`."""

    needs: dict[str, int]
    now: float = 0.0
    places: list[LoadedModel] = field(default_factory=list)
    waiting: list[tuple[ModelRequest, float]] = field(default_factory=list)
    ends: list[tuple[float, LoadedModel]] = field(default_factory=list)
    ready_at: dict[Path, float] = field(default_factory=dict)
    loads: int = 0
    served: dict[str, int] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)

    def step(self, length: float) -> None:
        for end, held in [one for one in self.ends if one[0] <= self.now]:
            held.running -= 1
            self.ends.remove((end, held))
        for one in self.places:
            if one.state == "loading" and self.ready_at[one.path] <= self.now:
                one.loaded(self.now, 1.0)
        for request, since in list(self.waiting):
            asks = [one for one, _ in self.waiting]
            found = next((one for one in self.places if one.path == request.path), None)
            if found is not None and may_start(found, request, asks, self.places, self.now):
                self.waiting.remove((request, since))
                found.running, found.used = found.running + 1, self.now
                self.ends.append((self.now + length, found))
                self.served[request.path.name] = self.served.get(request.path.name, 0) + 1
                self.waits.append(self.now - since)
        turn = next_load([one for one, _ in self.waiting], self.places, self.now)
        if turn is not None:
            assert all(one.running == 0 for one in turn.evicted), "thrown out while it answers"
            self.places = [one for one in self.places if one not in turn.evicted]
            self.places.append(LoadedModel(turn.request.path, "memory", turn.request.load_plan.plan.needs))
            assert sum(one.needs for one in self.places) <= 10, "more than there is"
            self.ready_at[turn.request.path] = self.now + 1.0
            self.loads += 1
        self.now += 0.1


@given(
    needs=st.lists(st.integers(1, 10), min_size=2, max_size=4),
    length=st.sampled_from([0.1, 0.7, 3.0]),
)
def test_however_busy_everybody_is_served_and_models_are_not_swapped_for_each_request(
    needs: list[int], length: float
) -> None:
    world = World({f"m{n}": need for n, need in enumerate(needs)})
    for _ in range(600):
        # Each model always has a request waiting: the worst there can be.
        for name, need in world.needs.items():
            if not any(one.path.name == name for one, _ in world.waiting):
                world.waiting.append((ask(name, need), world.now))
        world.step(length)
    assert set(world.served) == set(world.needs)
    assert max(world.waits) <= len(needs) * (1.0 + STAY + 2 * length + 1)
    fit = sum(needs) <= 10
    assert world.loads <= (len(needs) if fit else world.now / (1.0 + STAY) * len(needs))


def test_in_the_way_knows_that_nothing_is_when_there_is_room() -> None:
    assert in_the_way(ask("b", 2), [place("a", 8)], now=0) == ()
