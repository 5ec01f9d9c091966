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
    """Import a public name when it is first used, so that importing the package stays light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    homes = (import_module(f"{__name__}.{home}") for home in ("errors", "types", "router"))
    value = globals()[name] = getattr(next(home for home in homes if hasattr(home, name)), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
