"""What device models may take together, beside the estimator and beside what others take of the machine."""

from __future__ import annotations

import pytest

from scope_edge.providers.llama import memory
from scope_edge.providers.llama.memory import GIB, SPARE, SPARE_GPU, Gpu, LoadPlan, MemoryBudget, NoRoom, Store
from scope_edge.providers.llama.messages import ModelShape

# An 8B as Q4_K_M: 4.9 GB, 131 kB of cache a token.
SHAPE = ModelShape("llama", "Q4_K_M", 8_030_261_248, 32, 131_072, 128_256, 2 * 32 * 8 * 256, True)
SIZE = 4_900_000_000
NOTHING: dict[Store, int] = {"gpu": 0, "memory": 0}


def machine(monkeypatch: pytest.MonkeyPatch, free: float | None, *gpus: Gpu) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: None if free is None else int(free * GIB))
    monkeypatch.setattr("scope_edge.providers.llama.memory.usable_gpus", lambda: gpus)


def load_plan(found: LoadPlan | NoRoom) -> LoadPlan:
    assert isinstance(found, LoadPlan), found.why
    return found


def test_the_processors_memory_is_shared_with_the_estimator(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 16)
    found = load_plan(MemoryBudget(3 * GIB).load_plan(SHAPE, SIZE, NOTHING))
    assert found.store == "memory" and found.room == 13 * GIB - SPARE
    assert isinstance(MemoryBudget(11 * GIB).load_plan(SHAPE, SIZE, NOTHING), NoRoom)


def test_models_that_are_loaded_are_not_counted_twice_and_what_others_take_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, 16)
    shared = MemoryBudget(0)
    machine(monkeypatch, 9)
    assert load_plan(shared.load_plan(SHAPE, SIZE, {"gpu": 0, "memory": 7 * GIB})).room == 16 * GIB - SPARE
    assert load_plan(shared.load_plan(SHAPE, SIZE, NOTHING)).room == 9 * GIB - SPARE, "somebody else took it"
    machine(monkeypatch, 15)
    mapped = shared.load_plan(SHAPE, SIZE, {"gpu": 0, "memory": 7 * GIB})
    assert load_plan(mapped).room == 16 * GIB - SPARE, "weights that are only mapped count as free, and are not"


def test_the_estimators_share_of_a_gpu_is_kept_only_where_the_model_fits_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, 32, Gpu("nvidia", "large", 24.0, "test"))
    found = load_plan(MemoryBudget(6 * GIB).load_plan(SHAPE, SIZE, NOTHING))
    assert found.store == "gpu" and found.room == 18 * GIB - SPARE_GPU
    machine(monkeypatch, 32, Gpu("nvidia", "small", 12.0, "test"))
    found = load_plan(MemoryBudget(6 * GIB).load_plan(SHAPE, SIZE, NOTHING))
    assert found.store == "gpu" and found.room == 12 * GIB - SPARE_GPU, "the estimator is the one to go elsewhere"
    machine(monkeypatch, 32, Gpu("nvidia", "tiny", 4.0, "test"))
    assert load_plan(MemoryBudget(6 * GIB).load_plan(SHAPE, SIZE, NOTHING)).store == "memory"


def test_an_apple_gpu_shares_the_machines_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 24, Gpu("apple", "M", None, "test"))
    found = load_plan(MemoryBudget(4 * GIB).load_plan(SHAPE, SIZE, NOTHING))
    assert found.store == "memory" and found.plan.gpu_layers == -1 and found.room == 20 * GIB - SPARE


def test_unknown_memory_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, None)
    assert load_plan(MemoryBudget(4 * GIB).load_plan(SHAPE, SIZE, NOTHING)).room == float("inf")
