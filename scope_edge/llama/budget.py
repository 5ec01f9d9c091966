"""What device models may take together: the memory there was before any was loaded, less what the estimator holds."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from scope_edge.llama.memory import GIB, SPARE, SPARE_GPU, NoRoom, Plan, available_memory, plan_estimator

if TYPE_CHECKING:
    from scope_edge.gpus import Gpu
    from scope_edge.llama.jobs import Shape

# One GPU with memory of its own, or the machine's memory (an Apple GPU's too).
Store = Literal["gpu", "memory"]


@dataclass(frozen=True, slots=True)
class Berth:
    """How a model would be loaded if it had the machine to itself. room: bytes all models in that store may take."""

    plan: Plan
    store: Store
    room: float


class Budget:
    """Room for device models. What others take later is seen in the machine's memory, not in a GPU's."""

    def __init__(self, reserved_bytes: int) -> None:
        """reserved_bytes: what the estimator takes, or will."""
        self._reserved = reserved_bytes
        self._begin = available_memory()
        self._lock = threading.Lock()
        self._gpus: tuple[Gpu, ...] | None = None

    def berth(self, shape: Shape, size: int, held: Mapping[Store, int]) -> Berth | NoRoom:
        """Where a model goes. held: what those that are loaded take, which counts as free here.

        The estimator's share is kept from a GPU only where the model fits beside it: it is the one to go elsewhere.
        """
        available = self._available(held["memory"])
        if available is not None:
            available -= self._reserved
        whole = self.look()
        for kept in (self._reserved, 0):
            gpus = tuple(_less(gpu, kept) for gpu in whole)
            plan = plan_estimator(shape, size, available=available, gpus=gpus)
            own = next((gpu.memory_gb for gpu in gpus if gpu.memory_gb is not None), None)
            if isinstance(plan, Plan) and plan.gpu_layers and own is not None:
                return Berth(plan, "gpu", own * GIB - SPARE_GPU)
        if isinstance(plan, NoRoom):
            return plan
        return Berth(plan, "memory", float("inf") if available is None else available - SPARE)

    def _available(self, held: int) -> int | None:
        """Bytes of memory there would be without the models that are loaded; None = unknown.

        Weights that a model only mapped count as free, though they are needed: so never more than at the beginning.
        """
        now = available_memory()
        return self._begin if self._begin is None or now is None else min(self._begin, now + held)

    def look(self) -> tuple[Gpu, ...]:
        """The GPUs as they were before any model was loaded; looked for once, for that starts a process."""
        from scope_edge.managing.loadable import usable_gpus

        with self._lock:
            if self._gpus is None:
                self._gpus = usable_gpus()
            return self._gpus


def _less(gpu: Gpu, kept: int) -> Gpu:
    return gpu if gpu.memory_gb is None else replace(gpu, memory_gb=gpu.memory_gb - kept / GIB)
