"""scope-edge: choose between the model on the device and the one in the cloud, before either runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scope_edge.answer import Answer
    from scope_edge.api import Router, Stream
    from scope_edge.errors import (
        AssetError,
        BrokenAnswerError,
        BudgetError,
        InfeasibleError,
        RefusedError,
        ScopeEdgeError,
        UnansweredError,
        UsageError,
    )
    from scope_edge.records import Candidate, Decision, ModelCard, Run

__version__ = "0.1.0"

# Where the public names live. They are imported when they are first used, so that importing the package stays light.
_HOMES = {
    "Answer": "answer",
    "AssetError": "errors",
    "BrokenAnswerError": "errors",
    "BudgetError": "errors",
    "Candidate": "records",
    "Decision": "records",
    "InfeasibleError": "errors",
    "ModelCard": "records",
    "RefusedError": "errors",
    "Router": "api",
    "Run": "records",
    "ScopeEdgeError": "errors",
    "Stream": "api",
    "UnansweredError": "errors",
    "UsageError": "errors",
}
__all__ = [
    "Answer",
    "AssetError",
    "BrokenAnswerError",
    "BudgetError",
    "Candidate",
    "Decision",
    "InfeasibleError",
    "ModelCard",
    "RefusedError",
    "Router",
    "Run",
    "ScopeEdgeError",
    "Stream",
    "UnansweredError",
    "UsageError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
