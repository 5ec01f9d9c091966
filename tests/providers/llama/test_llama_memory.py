"""Where the estimator may go: beside the device model, never in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from scope_edge.providers.llama import memory
from scope_edge.providers.llama.memory import GIB, Gpu, NoRoom, Plan, plan_estimator
from scope_edge.providers.llama.messages import ModelShape

# Qwen3-4B as Q4_K_M: 2.5 GB, 36 layers of 8 heads with 128 + 128 numbers at two bytes, 147 kB a token.
SHAPE = ModelShape("qwen3", "Q4_K_M", 4_022_468_096, 36, 40_960, 151_936, 2 * 36 * 8 * 256, True)
SIZE = 2_500_000_000
RTX_8 = Gpu("nvidia", "RTX 4060", 8.0, "test")
RTX_24 = Gpu("nvidia", "RTX 4090", 24.0, "test")


def planned(plan: Plan | NoRoom) -> Plan:
    assert isinstance(plan, Plan), plan.why
    return plan


def test_a_large_gpu_takes_the_estimator_with_a_wide_context() -> None:
    plan = planned(plan_estimator(SHAPE, SIZE, available=32 * GIB, gpus=[RTX_24], resident_gb=4.9))
    assert plan.gpu_layers == -1
    assert plan.context == memory.GPU_CONTEXT
    assert "RTX 4090" in plan.why


def test_eight_gigabytes_do_not_hold_both_so_the_estimator_goes_to_the_processor() -> None:
    plan = planned(plan_estimator(SHAPE, SIZE, available=16 * GIB, gpus=[RTX_8], resident_gb=4.9))
    assert plan.gpu_layers == 0
    assert plan.context == memory.CONTEXT


def test_short_memory_means_less_context_and_then_none_at_all() -> None:
    full = planned(plan_estimator(SHAPE, SIZE, available=64 * GIB))
    less = planned(plan_estimator(SHAPE, SIZE, available=full.needs + GIB - 1))
    assert (full.context, less.context) == (memory.CONTEXT, memory.LEAST_CONTEXT)
    nothing = plan_estimator(SHAPE, SIZE, available=less.needs + GIB - 1)
    assert isinstance(nothing, NoRoom)
    assert "no room" in nothing.why


def test_a_device_model_on_the_processor_keeps_its_memory() -> None:
    room = planned(plan_estimator(SHAPE, SIZE, available=64 * GIB)).needs + GIB
    assert isinstance(plan_estimator(SHAPE, SIZE, available=room), Plan)
    beside = plan_estimator(SHAPE, SIZE, available=room, resident_gb=4.9)
    assert isinstance(beside, NoRoom) and "4.9 GB" in beside.why


def test_a_context_asked_for_is_given_or_refused_never_shrunk() -> None:
    assert planned(plan_estimator(SHAPE, SIZE, available=64 * GIB, context=20_000)).context == 20_000
    assert isinstance(plan_estimator(SHAPE, SIZE, available=64 * GIB, context=10**7), NoRoom)


def test_unknown_memory_is_not_taken_for_none() -> None:
    assert planned(plan_estimator(SHAPE, SIZE, available=None)).context == memory.CONTEXT


def test_an_apple_gpu_shares_the_machines_memory() -> None:
    apple = Gpu("apple", "Apple GPU (Metal)", None, "test")
    assert planned(plan_estimator(SHAPE, SIZE, available=32 * GIB, gpus=[apple])).gpu_layers == -1
    assert planned(plan_estimator(SHAPE, SIZE, available=6 * GIB, gpus=[apple])).gpu_layers == 0


def test_memory_of_this_machine_is_found() -> None:
    found = memory.available_memory()
    assert found is None or found > 64 * 2**20
    assert memory.physical_cores() >= 1


@pytest.mark.parametrize(
    ("limit", "used", "left"), [("max\n", "5\n", None), ("1000\n", "400\n", 600), ("10\n", "40\n", 0)]
)
def test_a_containers_limit_counts(tmp_path: Path, limit: str, used: str, left: int | None) -> None:
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text(used)
    assert memory._cgroup(tmp_path) == left
    (tmp_path / "memory.stat").write_text("anon 3\ninactive_file 4\n")
    given_up = None if left is None else max(0, int(limit) - int(used) + 4)
    assert memory._cgroup(tmp_path) == given_up, "what was read of files can be had"
