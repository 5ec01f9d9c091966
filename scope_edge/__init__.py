"""scope-edge: choose between the model on the device and the one in the cloud, before either runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scope_edge._version import __version__

if TYPE_CHECKING:
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
    from scope_edge.router import Router, Stream
    from scope_edge.types import Answer, Candidate, Decision, ModelCard, Run


# Where the public names live. They are imported when they are first used, so that importing the package stays light.
_HOMES = {
    "Answer": "types",
    "AssetError": "errors",
    "BrokenAnswerError": "errors",
    "BudgetError": "errors",
    "Candidate": "types",
    "Decision": "types",
    "InfeasibleError": "errors",
    "ModelCard": "types",
    "RefusedError": "errors",
    "Router": "router",
    "Run": "types",
    "ScopeEdgeError": "errors",
    "Stream": "router",
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
